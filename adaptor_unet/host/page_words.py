"""Words for the person at the page, beside those in the log."""

from comfy_execution.utils import get_executing_context

MESSAGE = "magicvideo.told"  # `web/page.js` waits for it


def tell_page(node: str, words: str) -> None:
    """Has the page that queued a graph show words about one of our nodes; does nothing where there is none.

    ``node``: the name that it is known by, which stands above the words.
    """
    if get_executing_context() is None:
        return
    from server import PromptServer  # the host's own, which runs where a node is executed

    server = PromptServer.instance
    if server.client_id is None:  # queued by a script: the host would tell every page
        return
    server.send_sync(MESSAGE, {"node": node, "words": words}, server.client_id)


def say_on_node(words: str) -> None:
    """Shows words on the node that is executed, as long as it is; does nothing outside of a graph."""
    context = get_executing_context()
    if context is None:
        return
    from server import PromptServer  # as above

    PromptServer.instance.send_progress_text(words, context.node_id)
