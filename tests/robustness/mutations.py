"""Damaged scans: NIfTI files whose headers, voxels, extensions and gzip streams are changed at random, by number."""

import gzip
import struct
import zlib
from collections.abc import Callable

import nibabel as nib
import numpy as np

GROWN, LARGEST = 2**22, 2**28  # bytes; to what voxels are added where a header asks for more than there are
NUMBERS = (0, 1, -1, 2, 3, 7, 8, 127, 255, 32767, -32768, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-20, 1e-6, 0.01, 50.0, 1e4, 1e20, 3e38, np.inf, -np.inf, np.nan)
CODES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
GEOMETRY = ("srow_x", "srow_y", "srow_z", "pixdim", "quatern_b", "quatern_c", "quatern_d", "sform_code", "qform_code")


def damaged_scan(seed: int, number: int) -> tuple[str, bytes]:
    """The name and the bytes of a damaged scan; the same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    header, extension, voxels = _whole_scan(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _choose(rng, HEADER_CHANGES)(rng, header)
    if rng.random() < 0.1:
        voxels = _choose(rng, VOXEL_CHANGES)(rng, voxels)
    content = header.binaryblock + extension + voxels
    if rng.random() < 0.15:
        content = _grown(header, content, LARGEST if rng.random() < 0.004 else GROWN)
    if rng.random() < 0.25:
        content = _choose(rng, BYTE_CHANGES)(rng, content)
    if rng.random() < 0.2:
        return "scan.nii", content
    packed = _choose(rng, PACKINGS)(rng, content)
    if rng.random() < 0.25:
        packed = _choose(rng, BYTE_CHANGES)(rng, packed)
    return str(rng.choice(["scan.nii.gz"] * 19 + ["scan.nii"])), packed


def _whole_scan(rng: np.random.Generator) -> tuple[nib.Nifti1Header, bytes, bytes]:
    """A small scan of any kind that is accepted: header, extension, voxels."""
    kind = rng.choice([nib.Nifti1Header, nib.Nifti1Header, nib.Nifti2Header])
    header = kind(endianness=rng.choice(["<", ">"]))
    shape = tuple(int(n) for n in rng.integers(4, 25, 3)) + (1,) * int(rng.random() < 0.2)
    header.set_data_shape(shape)
    header.set_data_dtype(rng.choice(["u1", "i2", "i4", "f4", "f8", "u2"]))
    zooms = rng.uniform(0.5, 6, 3)
    affine = np.diag([*(zooms * rng.choice([-1, 1], 3)), 1])[:, [*rng.permutation(3), 3]]
    affine[:3, 3] = rng.normal(0, 50, 3)
    if rng.random() < 0.5:
        header.set_sform(affine, int(rng.integers(1, 5)))
    if rng.random() < 0.5 or not header["sform_code"]:
        header.set_qform(affine, int(rng.integers(1, 5)), strip_shears=True)
    extension = b"\0" * 4
    if rng.random() < 0.2:
        size = int(16 * rng.integers(1, 5))
        order = "<" if header.endianness == "<" else ">"
        extension = b"\1\0\0\0" + struct.pack(order + "ii", size, 6) + b"remark".ljust(size - 8, b"\0")
    header["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2\0\r\n\032\n"
    header["vox_offset"] = header.sizeof_hdr + len(extension)
    header["scl_slope"], header["scl_inter"] = rng.choice([(np.nan, np.nan), (0, 0), (1, 0), (0.5, -3.0)])
    values = rng.gamma(2, 40, shape).clip(0, 255).astype(header.get_data_dtype())
    return header, extension, values.tobytes(order="F")


def _any_field(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    """One element of any field becomes an odd number, or random bytes."""
    field = str(rng.choice(header.keys()))
    array = np.atleast_1d(np.array(header[field]))
    place = int(rng.integers(array.size))
    if rng.random() < 0.3 or array.dtype.kind not in "iuf":
        array.view(np.uint8)[...] = rng.integers(0, 256, array.nbytes, np.uint8)
    elif array.dtype.kind == "f":
        array[place] = rng.choice(FLOATS)
    else:
        limits = np.iinfo(array.dtype)
        array[place] = int(np.clip(rng.choice(np.array(NUMBERS, object)), limits.min, limits.max))
    header[field] = array.reshape(np.shape(header[field]))


def _geometry(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    """A field that says where voxels lie is scaled, turned into odd numbers, or noise."""
    field = str(rng.choice(GEOMETRY))
    values = np.array(header[field], float)
    change = rng.integers(3)
    with np.errstate(over="ignore", invalid="ignore"):
        if change == 0:
            values = values * 10.0 ** rng.uniform(-12, 12)
        elif change == 1:
            values = values + rng.normal(0, 10.0 ** rng.uniform(-3, 3), values.shape)
        else:
            values = np.where(rng.random(values.shape) < 0.4, rng.choice(FLOATS, values.shape), values)
        if np.issubdtype(header[field].dtype, np.integer):
            values = np.nan_to_num(values).clip(-(2**15), 2**15 - 1).astype(int)
        header[field] = values


def _same_size(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    """Another shape of as many voxels: long, flat, or of more axes."""
    voxels = int(np.prod(header.get_data_shape()))
    shape = [1] * int(rng.integers(1, 8))
    while voxels > 1:
        factor = next((p for p in range(2, int(voxels**0.5) + 1) if voxels % p == 0), voxels)
        shape[int(rng.integers(len(shape)))] *= factor
        voxels //= factor
    header["dim"] = np.minimum(([len(shape), *shape, *[1] * 7])[:8], np.iinfo(header["dim"].dtype).max)


def _long_axis(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    """A few axes become as long as the format allows, or nearly."""
    dim = np.array(header["dim"], np.int64)
    for axis in rng.choice([1, 2, 3], int(rng.integers(1, 4)), replace=False):
        dim[axis] = int(2 ** rng.uniform(0, 15)) - 1
    header["dim"] = dim


def _another_type(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    """Another type of voxels, which need more or fewer bytes."""
    header["datatype"] = int(rng.choice(CODES))


HEADER_CHANGES = (_any_field, _any_field, _any_field, _geometry, _geometry, _same_size, _long_axis, _another_type)


def _constant(rng: np.random.Generator, voxels: bytes) -> bytes:
    return bytes([int(rng.integers(256))]) * len(voxels)


def _noise(rng: np.random.Generator, voxels: bytes) -> bytes:
    """Random bytes: as floating-point numbers huge, tiny, infinite and NaN."""
    return rng.bytes(len(voxels))


def _one_bright_voxel(rng: np.random.Generator, voxels: bytes) -> bytes:
    content = bytearray(len(voxels))
    content[int(rng.integers(len(content)))] = 64
    return bytes(content)


VOXEL_CHANGES = (_constant, _noise, _one_bright_voxel)


def _grown(header: nib.Nifti1Header, content: bytes, most: int) -> bytes:
    """As many bytes as the header asks for, if that is no more than `most`."""
    try:
        needed = int(header["vox_offset"]) + header.get_data_dtype().itemsize * int(
            np.prod([int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]], dtype=object)
        )
    except (nib.spatialimages.HeaderDataError, KeyError, ValueError, OverflowError):
        return content
    if not len(content) < needed <= most:
        return content
    voxels = content[header.sizeof_hdr + 4 :]
    return content[: header.sizeof_hdr + 4] + (voxels * (needed // len(voxels) + 1))[: needed - header.sizeof_hdr - 4]


def _cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _flipped_bits(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(changed), int(rng.integers(1, 9))) if changed else ():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _shifted(rng: np.random.Generator, content: bytes) -> bytes:
    """Some bytes are lost, or some come in between."""
    place, length = int(rng.integers(len(content) + 1)), int(rng.integers(1, 64))
    if rng.random() < 0.5:
        return content[:place] + content[place + length :]
    return content[:place] + rng.bytes(length) + content[place:]


def _tail(rng: np.random.Generator, content: bytes) -> bytes:
    length = int(2 ** rng.uniform(0, 21.5))
    return content + (b"\0" * length if rng.random() < 0.5 else rng.bytes(length))


BYTE_CHANGES: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (_cut, _flipped_bits, _shifted, _tail)


def _packed(rng: np.random.Generator, content: bytes) -> bytes:
    return gzip.compress(content, int(rng.integers(0, 10)) if len(content) < 2**20 else 1, mtime=0)


def _in_members(rng: np.random.Generator, content: bytes) -> bytes:
    """Several gzip members behind each other, empty ones among them, and perhaps zeros between."""
    places = sorted(int(n) for n in rng.integers(0, len(content) + 1, int(rng.integers(1, 6))))
    pieces = [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]
    return (b"\0" * int(rng.choice([0, 0, 5]))).join(gzip.compress(piece, 1, mtime=0) for piece in pieces)


def _wrong_trailer(rng: np.random.Generator, content: bytes) -> bytes:
    """The checksum, or the length behind it, is another."""
    packed = bytearray(gzip.compress(content, 1, mtime=0))
    packed[-1 - int(rng.integers(8))] ^= int(rng.integers(1, 256))
    return bytes(packed)


def _with_gzip_fields(rng: np.random.Generator, content: bytes) -> bytes:
    """Optional fields of gzip's header, in whole or cut off."""
    flags = int(rng.integers(0, 256))
    extra = rng.bytes(int(rng.integers(0, 40)))
    start = struct.pack("<BBBBIBB", 31, 139, 8, flags, 0, 0, 255)
    fields = struct.pack("<H", len(extra)) + extra if flags & 4 else b""
    fields += b"name.nii\0" if flags & 8 else b""
    fields += b"remark\0" if flags & 16 else b""
    fields += struct.pack("<H", zlib.crc32(start + fields) & 0xFFFF) if flags & 2 else b""
    return start + fields + gzip.compress(content, 1, mtime=0)[10:]


def _bomb(rng: np.random.Generator, content: bytes) -> bytes:
    """Far more zeros behind the scan than the file has bytes."""
    return gzip.compress(content + b"\0" * int(2 ** rng.uniform(20, 27)), 6, mtime=0)


def _twice(rng: np.random.Generator, content: bytes) -> bytes:
    return gzip.compress(gzip.compress(content, 1, mtime=0), 1, mtime=0)


def _unpacked(rng: np.random.Generator, content: bytes) -> bytes:
    return content


PACKINGS = (
    *(_packed, _packed, _packed, _packed, _packed, _packed, _packed, _in_members, _in_members, _wrong_trailer),
    *(_with_gzip_fields, _with_gzip_fields, _bomb, _twice, _unpacked),
)


def _choose(rng: np.random.Generator, choices: tuple) -> Callable:
    return choices[int(rng.integers(len(choices)))]
