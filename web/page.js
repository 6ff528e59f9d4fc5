// What the page shows of the pack's nodes: names of choices in the page's language, and why a run was refused.
//
// Only by what the page offers to extensions; nothing of the page or of other nodes is changed.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const OURS = "MagicVideo_"
// The folder that the pack was cloned into, by which lines of a traceback are told to be its own.
const FOLDER = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0])
let words = {}

// Words of the nodes in the page's language, as ComfyUI gathers them from locales/; none where there are none.
async function wordsOfLanguage() {
    const answer = await api.fetchApi("/i18n")
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en"
    return (answer.ok && (await answer.json())[language]?.nodeDefs) || {}
}

// A choice keeps its value, which saved workflows hold; what is shown for it is its name.
function nameChoices(node) {
    for (const widget of node.widgets ?? []) {
        const names = words[node.comfyClass]?.inputs?.[widget.name]?.options
        if (names && widget.options) widget.options.getOptionLabel = value => names[value] ?? value ?? ""
    }
}

function isOurs({ node_type, traceback }) {
    return node_type?.startsWith(OURS) || (traceback ?? []).some(line => line.includes(FOLDER))
}

// Newer pages hide an error's sentence behind a button.
function tellWhy({ detail }) {
    if (!isOurs(detail)) return
    const summary = app.graph.getNodeById(detail.node_id)?.title ?? detail.node_type
    app.extensionManager?.toast?.add({ severity: "error", summary, detail: detail.exception_message.trim() })
}

app.registerExtension({
    name: "MagicVideo.Page",
    async init() {
        words = await wordsOfLanguage()
        api.addEventListener("execution_error", tellWhy)
    },
    nodeCreated(node) {
        if (node.comfyClass?.startsWith(OURS)) nameChoices(node)
    },
})
