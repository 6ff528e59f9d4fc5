"""Names that files may have on every system that people copy them to."""

import re
import unicodedata

# With what the pack puts behind a name, it still is one for all usual file systems, which take 255 bytes.
MOST_BYTES = 200
REFUSED_BY_WINDOWS = '<>:"/\\|?*'
DEVICES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])(\..*)?", re.IGNORECASE)
# Control characters, marks that turn the direction of text, halves of characters, line ends.
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Some scripts and emoji need these between two letters.
JOINERS = "\u200c\u200d"


def why_no_name(name: str) -> str:
    """What is wrong with the name of a file or folder, to stand behind "the name"; empty when nothing is."""
    if not name.strip(". "):
        return "is empty"
    if any(letter in REFUSED_BY_WINDOWS for letter in name):
        return f"holds one of {' '.join(REFUSED_BY_WINDOWS)}"
    if any(unicodedata.category(letter) in UNSEEN and letter not in JOINERS for letter in name):
        return "holds characters that cannot be seen, such as control characters or marks of direction"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if DEVICES.fullmatch(name):
        return "is one that Windows keeps for a device"
    if len(name.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes"
    return ""
