"""Whether a JPEG file holds its image to the end, judged from its markers (ITU-T T.81, annex B)."""

import re

# 0xFF followed by 0 is a data byte, by 0xD0-0xD7 a restart inside the data, by 0xFF a fill byte: all else is a marker.
_MARKER = re.compile(rb'\xff([^\x00\xd0-\xd7\xff])', re.DOTALL)
_EOI = 0xD9
_SOS = 0xDA
# Without a length behind them: TEM, SOI.
_BARE = frozenset({0x01, 0xD8})


def is_whole_jpeg(data: bytes) -> bool:
    """Whether the first image of a JPEG file ends with its end marker.

    Segments are stepped over by their length, so that the end of a thumbnail inside EXIF does not count; what follows
    the end (the film of a motion photo, the further images of a multi-picture file) has no say. A progressive image has
    many scans, with tables between them.

    Args:
        data: the file's content, which starts as a JPEG does.

    >>> is_whole_jpeg(b'\\xff\\xd8\\xff\\xda\\x00\\x02data\\xff\\xd9 and a film')
    True
    >>> is_whole_jpeg(b'\\xff\\xd8\\xff\\xda\\x00\\x02data')
    False
    """
    position, in_scan = 2, False
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            return in_scan
        if marker not in _BARE:
            position += int.from_bytes(data[position : position + 2], 'big')
        in_scan = in_scan or marker == _SOS
    return False
