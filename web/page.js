// What the page shows of the pack's nodes: names of choices in the page's language.
//
// Only by what the page offers to extensions; nothing of the page or of other nodes is changed.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const OURS = "MagicVideo_"
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

app.registerExtension({
    name: "MagicVideo.Page",
    async init() {
        words = await wordsOfLanguage()
    },
    nodeCreated(node) {
        if (node.comfyClass?.startsWith(OURS)) nameChoices(node)
    },
})
