"""What a decoder may leave out of a video without a word: an alpha layer, and the colours of Dolby Vision."""

from collections.abc import Iterator

import av

# FFmpeg's number for a file that does not say how its light was coded.
UNSPECIFIED = 2
# Names of Dolby Vision streams in a file, and what their frames carry.
DOLBY_VISION = ("dvh1", "dvhe", "dav1", "dva1", "dvav")
DOLBY_DATA = ("DOVI_RPU_BUFFER", "DOVI_METADATA")
# HEVC: units that hold messages, and the message that one of the stream's layers is alpha.
MESSAGES, ALPHA = 39, 165
# Bytes of a file's HEVC record before its first list of units.
RECORD = 22


def why_left_out(tag: str, extradata: bytes | None, frame: av.VideoFrame) -> str | None:
    """Why the frame is not what players show, in words that end a sentence, or None.

    ``tag``: the stream's name in the file; ``extradata``: its codec's record.  A decoder that knows alpha layers gives
    frames with alpha.  Dolby Vision over a picture that plain players show says how that is coded, as HDR or not; that
    of profile 5 says nothing, because its colours mean something in Dolby's decoder alone.
    """
    if has_alpha_layer(extradata) and not any(component.is_alpha for component in frame.format.components):
        return "is transparent, by an alpha layer that this PyAV cannot read; put it on a background first"
    dolby = tag.lower() in DOLBY_VISION or any(data.type.name in DOLBY_DATA for data in frame.side_data)
    if dolby and int(getattr(frame, "color_trc", UNSPECIFIED)) == UNSPECIFIED:
        return (
            "is Dolby Vision of a kind that only its own players show in the right colours (profile 5); convert it to "
            "HDR10, HLG or SDR first"
        )
    return None


def has_alpha_layer(extradata: bytes | None) -> bool:
    """Whether an HEVC record (hvcC) says that a layer of the stream is alpha."""
    return any(ALPHA in message_kinds(unit) for kind, unit in units(extradata or b"") if kind == MESSAGES)


def units(record: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the bytes of each unit in an HEVC record; none where it is something else or is cut off."""
    if len(record) <= RECORD or record[0] != 1:
        return
    at, lists = RECORD + 1, record[RECORD]
    for _ in range(lists):
        kind, count, at = (
            (record[at] & 63 if at < len(record) else 0),
            int.from_bytes(record[at + 1 : at + 3], "big"),
            at + 3,
        )
        for _ in range(count):
            size, at = int.from_bytes(record[at : at + 2], "big"), at + 2
            if at + size > len(record):
                return
            yield kind, record[at : at + size]
            at += size


def message_kinds(unit: bytes) -> Iterator[int]:
    """The kinds of the messages in a unit: two bytes of head, then kind, size and body of each."""
    at = 2
    while at + 2 < len(unit):
        numbers = []
        for _ in range(2):  # both are sums of bytes up to the first that is not 255
            number = 0
            while at < len(unit) and unit[at] == 255:
                number, at = number + 255, at + 1
            if at == len(unit):
                return
            numbers.append(number + unit[at])
            at += 1
        yield numbers[0]
        at += numbers[1]
