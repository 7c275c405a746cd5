"""Archives and pictures that lie: small files that unfold to gigabytes, sizes that are negative or huge, names that leave."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np

MEGABYTE = 1 << 20


def zip_bomb(good: bytes, seed: int) -> bytes:
    """A member of the archive replaced by one that unfolds to up to 8 GB, or whose header tells another size."""
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    victim, unfolded = int(rng.integers(len(members))), int(rng.choice([1, 100, 4000, 8000]))
    told = int(rng.choice([0, 1, MEGABYTE, (1 << 32) - 2]))
    kind = int(rng.integers(4))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, (name, content) in enumerate(members):
            if index == victim and kind == 0:
                name = str(rng.choice(["../../out.npy", "/tmp/out.npy", "a" * 60_000, "ab:c"]))
            if index == victim and kind == 1 and name.endswith(".npy"):
                content = _npy_header(rng) + content[-64:]
            archive.writestr(name, content)
    content = bytearray(out.getvalue())
    if kind < 2:
        return bytes(content)
    return _with_member(content, members[victim][0].encode(), _zeros(unfolded) if kind == 2 else None, told)


def _zeros(megabytes: int) -> bytes:
    """A deflate stream of so many megabytes of zeros; the same block again and again, so that it costs nothing to make."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(bytes(MEGABYTE))
    packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + packer.flush()


def _with_member(archive: bytearray, name: bytes, packed: bytes | None, told: int) -> bytes:
    """The zip with one member's packed content and told size changed, in both of its headers."""
    with zipfile.ZipFile(io.BytesIO(bytes(archive))) as opened:
        info = opened.getinfo(name.decode())
        start = info.header_offset
        first = start + 30 + len(name)
        directory = opened.start_dir
    packed = bytes(archive[first : first + info.compress_size]) if packed is None else packed
    grown = len(packed) - info.compress_size
    local = archive[start:first]
    struct.pack_into("<II", local, 18, len(packed), told)
    central = archive[directory:]
    at = 0
    while central[at : at + 4] == b"PK\1\2":
        length = sum(struct.unpack_from("<HHH", central, at + 28))
        (offset,) = struct.unpack_from("<I", central, at + 42)
        if offset == start:
            struct.pack_into("<II", central, at + 20, len(packed), told)
        elif offset > start:
            struct.pack_into("<I", central, at + 42, offset + grown)
        at += 46 + length
    struct.pack_into("<I", central, at + 16, directory + grown)
    return bytes(archive[:start] + local + packed + archive[first + info.compress_size : directory] + central)


def _npy_header(rng: np.random.Generator) -> bytes:
    """Of an array that is far larger than its file, or of no kind that there is."""
    shape = str(rng.choice(["(1000000000,)", "(-5, 3)", "(99999, 99999, 3)", "(1,) * 9", "(1e9,)", "(10**12,)"]))
    kind = str(rng.choice(["<f4", "|O", "<f8", "<U100000000", "|V0"]))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def tar_bomb(good: bytes, seed: int) -> bytes:
    """A member whose size is negative or huge, whose name leaves the folder, which is a link or a device, or never ends."""
    rng = np.random.default_rng(seed)
    heads = [at for at in range(0, len(good) - 511, 512) if good[at + 257 : at + 262] == b"ustar"]
    at = int(rng.choice(heads))
    head = bytearray(good[at : at + 512])
    kind = int(rng.integers(5))
    if kind == 0:  # base 256: any 88-bit number with a sign
        size = int(rng.choice([-1000, -1, 1 << 43, 1 << 62]))
        head[124:136] = (size & ((1 << 96) - 1) | (0x80 << 88 if size >= 0 else 0)).to_bytes(12, "big")
    elif kind == 1:
        head[124:136] = bytes(rng.choice([b"77777777777\0", b"00000000000\0", b"-0000001000\0", b"99999999999\0"]))
    elif kind == 2:
        head[:100] = bytes(rng.choice([b"../../../etc/x", b"/etc/x", b"./", b"a/../../x", b"\xff\xfe"])).ljust(
            100, b"\0"
        )
    elif kind == 3:
        head[156:157] = bytes(rng.choice([b"1", b"2", b"3", b"4", b"5", b"6", b"x", b"g", b"L", b"S"]))
        head[157:257] = b"/etc/passwd".ljust(100, b"\0")
    else:  # an extended header that tells the size of what follows
        text = f" size={int(rng.choice([-5, 10**13, 10**30]))}\n"
        text = f"{len(text) + 2}{text}"
        info = tarfile.TarInfo("pax")
        info.type, info.size = b"x", len(text)
        return good[:at] + info.tobuf(tarfile.USTAR_FORMAT) + text.encode().ljust(512, b"\0") + good[at:]
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return good[:at] + bytes(head) + good[at + 512 :]


def picture_bomb(good: bytes, seed: int) -> bytes:
    """Sizes in the headers of pictures, also of frames within a film, made far larger than what the file announced."""
    rng = np.random.default_rng(seed)
    content = bytearray(good)
    wide, high = (int(side) for side in rng.choice([1, 33, 9000, 30_000, 65_535], size=2))
    frames = [at + 5 for at in _places(content, b"\xff\xc0\x00\x11\x08")]  # JPEG, height first
    images = [at + 5 for at in _places(content, b"\x2c\0\0\0\0")] + [6] * (content[:3] == b"GIF")
    chunks = [at for at in _places(content, b"IHDR")]
    for at in frames:
        if rng.random() < 0.7:
            struct.pack_into(">HH", content, at, high, wide)
    for at in images:
        if rng.random() < 0.7:
            struct.pack_into("<HH", content, at, wide, high)
    for at in chunks:
        struct.pack_into(">II", content, at + 4, wide, high)
        struct.pack_into(">I", content, at + 17, zlib.crc32(content[at : at + 17]))
    return bytes(content)


def _places(content: bytearray, wanted: bytes) -> list[int]:
    places, at = [], content.find(wanted)
    while at >= 0:
        places.append(at)
        at = content.find(wanted, at + 1)
    return places
