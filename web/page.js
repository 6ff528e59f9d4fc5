// What the pack adds to the page: names of choices in the page's language, results that play by themselves, refusals that
// are read without a press, and the clip that some templates begin with.
//
// Only by what the page and the server offer to extensions; nothing of the page or of other packs is replaced.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const OURS = "MagicVideo_"
// The folder that the pack was cloned into, by which lines of a traceback are told to be its own.
const FOLDER = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0])
// Of ComfyUI's own: what saves a video and shows it, and what loads one.
const SAVERS = ["SaveVideo", "SaveWEBM"]
const LOADER = "LoadVideo"
// Templates that draw a video anew begin with this one, which lies beside this file.
const CLIP = "magicvideo_boat.mp4"
const REFUSAL = "magicvideo-refusal"
const TOLD = "magicvideo-told"

let words = {}
let shown = [] // messages of the run, until the next one begins
const results = new Set()

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

// Whether a graph has a node of ours, in a subgraph or not.
function holdsOurs(graph) {
    return graph.nodes.some(({ type, subgraph }) => type?.startsWith(OURS) || (subgraph && holdsOurs(subgraph)))
}

// Notes the videos that a graph with nodes of ours has saved. The page makes their elements later, and again when one
// comes back to a graph, so that they are waited for.
function noteResult({ detail }) {
    const saver = app.graph.getNodeById(detail.display_node ?? detail.node)
    if (!SAVERS.includes(saver?.type) || !holdsOurs(app.graph)) return
    for (const { subfolder, filename } of detail.output?.images ?? []) results.add(`${subfolder}/${filename}`)
    newVideos.observe(document.body, { childList: true, subtree: true })
}

const newVideos = new MutationObserver(changes => {
    for (const { addedNodes } of changes)
        for (const added of addedNodes)
            if (added instanceof HTMLVideoElement) play(added)
            else if (added instanceof Element) added.querySelectorAll("video").forEach(play)
})

// Without sound, which is what browsers ask for. The page has it loop already.
function play(video) {
    const asked = new URL(video.src, location).searchParams
    if (!results.has(`${asked.get("subfolder") ?? ""}/${asked.get("filename")}`)) return
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return
    video.muted = video.autoplay = true
    video.play().catch(() => {}) // where the browser forbids it, the button is still there
}

function isOurs({ node_type, traceback }) {
    return node_type?.startsWith(OURS) || (traceback ?? []).some(line => line.split(/[\\/]/).includes(FOLDER))
}

// Newer pages hide an error's sentence behind a button; older ones show it in a dialog.
function tellWhy({ detail }) {
    if (!isOurs(detail) || !app.extensionManager?.setting?.get("Comfy.RightSidePanel.ShowErrorsTab")) return
    const summary = app.graph.getNodeById(detail.node_id)?.title ?? detail.node_type
    show({ severity: "error", summary, detail: detail.exception_message.trim(), styleClass: REFUSAL })
}

// What the log says too, and what nobody would look for there.
function tell({ detail: { node, words } }) {
    const detail = words[0].toUpperCase() + words.slice(1)
    show({ severity: "info", summary: node, detail, styleClass: TOLD })
}

function show(message) {
    app.extensionManager?.toast?.add(message)
    shown.push(message)
}

function forgetLastRun() {
    for (const message of shown) app.extensionManager?.toast?.remove(message)
    shown = []
}

// Messages stand where they cover no button: a refusal below the page's own message, others below the bar with Run, which
// older pages have in that corner. The box that holds all messages lets clicks through beside them.
function makeRoomForMessages() {
    const style = document.createElement("style")
    style.textContent = `
        .${REFUSAL} { margin-top: 9rem }
        .${TOLD} { margin-top: 4rem }
        .p-toast:has(.${REFUSAL}, .${TOLD}) { pointer-events: none }
        .p-toast:has(.${REFUSAL}, .${TOLD}) .p-toast-message { pointer-events: auto }`
    document.head.append(style)
}

// Puts the clip among the user's input files, as if it had been chosen from a disk, unless it is there.
async function bringClip() {
    const loader = await api.fetchApi(`/object_info/${LOADER}`)
    if ((await loader.text()).includes(`"${CLIP}"`)) return
    const clip = await fetch(new URL(CLIP, import.meta.url))
    const body = new FormData()
    body.append("image", new File([await clip.blob()], CLIP, { type: "video/mp4" }))
    const answer = await api.fetchApi("/upload/image", { method: "POST", body })
    if (answer.ok) await app.refreshComboInNodes()
}

app.registerExtension({
    name: "MagicVideo.Page",
    async init() {
        makeRoomForMessages()
        api.addEventListener("executed", noteResult)
        api.addEventListener("execution_error", tellWhy)
        api.addEventListener("execution_start", forgetLastRun)
        api.addEventListener("magicvideo.told", tell)
        words = await wordsOfLanguage()
    },
    nodeCreated(node) {
        if (node.comfyClass?.startsWith(OURS)) nameChoices(node)
    },
    async beforeConfigureGraph(graph) {
        const loaders = (graph.nodes ?? []).filter(({ type }) => type === LOADER)
        if (loaders.some(node => Object.values(node.widgets_values ?? {}).includes(CLIP))) await bringClip()
    },
})
