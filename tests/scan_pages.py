"""A small segmented scan and its record, and what a report's page holds, for the tests of reports."""

import base64
import json
import re
import zlib

import nibabel as nib
import numpy as np

from planar3d.evaluation.lesion_table import lesion_table
from planar3d.scans.volume import Scan

AFFINE = nib.affines.from_matvec(np.diag([1.0, 1.2, 3.0]), (-20, 30, 7))


def segmented(axes="RAS"):
    """A head with two lesions, one large and on the patient's right, and its mask, stored along given axes."""
    i, j, k = np.ogrid[-1.4:1.4:40j, -1.4:1.4:46j, -1.4:1.4:18j]
    head = np.where(i**2 + j**2 + k**2 < 0.9, 500 + 100 * (i + j + k), 5).astype(np.int16)
    mask = np.zeros(head.shape, np.uint8)
    mask[26:31, 24:29, 8:11] = 1
    mask[14, 18, 6] = 1
    there = nib.orientations.axcodes2ornt(tuple(axes))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), there)
    turned = [nib.Nifti1Image(volume, AFFINE).as_reoriented(turn) for volume in (head, mask)]
    return tuple(Scan(np.asarray(image.dataobj), image.header) for image in turned)


def record_of(mask, name="sub-01_FLAIR"):
    """What is written beside a mask."""
    lesions = [lesion._asdict() for lesion in lesion_table(mask)]
    volumes = [lesion["volume_ml"] for lesion in lesions]
    return {
        "scan": {"name": name, "path": f"/data/{name}.nii.gz", "sha256": "5ca", "spacing_mm": list(mask.spacing)},
        "model": {"name": "ms-flair", "sha256": "30de1", "licence": "CC BY 4.0", "threshold": 32.0},
        "recipe": {"name": "modern", "size": 256, "frozen": ["encoder"]},
        "requested": {"method": "auto"},
        "how": {"description": "shared on OpenVINO, bf16", "seed": 0},
        "versions": {"planar3d": "0.1.0", "keras": "3.15.1"},
        "result": {
            "lesions": len(lesions),
            "volume_ml": sum(volumes),
            "largest_ml": max(volumes, default=0.0),
            "mask_sha256": "3a5c",
        },
        "lesions": lesions,
        "warnings": [{"check": "spacing", "sentence": "Slices lie far apart."}],
        "date": "2026-11-27T12:00:00+00:00",
        "files": {"record": f"{name}.json", "mask": f"{name}_mask.nii.gz", "report": f"{name}_report.html"},
    }


def pictures_of(page):
    """The JSON in a page, its volumes unpacked to (x, y, z)."""
    text = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', page, re.DOTALL).group(1)
    content = json.loads(text)
    for name, packed in content["volumes"].items():
        values = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
        content["volumes"][name] = values.reshape(content["shape"], order="F")
    return content


def text_of(page):
    """What is read of a page, in a line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))
