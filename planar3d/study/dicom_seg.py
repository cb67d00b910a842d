"""The lesions of a DICOM series as a DICOM Segmentation object for the archive of its images."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import planar3d
from planar3d.errors import ScanError
from planar3d.evaluation.lesion_table import lesion_labels
from planar3d.extras import extra
from planar3d.files import written_beside
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.dicom_conversion import as_frames
from planar3d.scans.dicom_geometry import grid_of
from planar3d.scans.dicom_headers import quietly
from planar3d.scans.volume import Scan

# Elements that the standard requires, if only empty, and that anonymizers remove.
_MAY_BE_EMPTY = (
    "PatientID PatientName PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber "
    "ReferringPhysicianName"
)
# Elements that must not be empty: highdicom has a default, or a message, only for absent ones.
_NEVER_EMPTY = "StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID FrameOfReferenceUID LossyImageCompression"
_AFTER = 1000  # added to the images' series number for the segmentation's series
_ONE_SET, _UTF_8 = "ISO_IR 1", "ISO_IR 192"  # the beginning of a single character set's name


@quietly()
def write_dicom_seg(mask: Scan, series: DicomSeries, model: Mapping[str, Any], path: str | Path) -> Path:
    """Write a mask as a DICOM Segmentation object, with a binary segment per lesion, on the images of its series.

    A segment has the number of its lesion in `lesion_table` and a tracking identifier; its type is Lesion, its region
    Brain, both by SNOMED CT. A mask without lesions gives one segment without pixels. The same mask of the same series
    has the same identifiers.

    Args:
        mask: above 0.5 is lesion; on the grid of the series.
        model: its `name` and `sha256`.

    Raises:
        ScanError: the mask is on another grid or has over 65,535 lesions, or the headers of the series lack elements
            that the object must repeat.

    Source: DICOM PS3.3, A.51; PS3.16, context groups 7150, 7151.
    """
    with extra("dicom"):
        import highdicom
        from pydicom import dcmread
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

    labels = as_frames(Scan(lesion_labels(mask), mask.header), series)
    if (count := int(labels.max())) >= 2**16:
        raise ScanError(
            f"{series.images[0].path}: series {series} has {count:,} lesions, but a DICOM Segmentation object can have "
            "at most 65,535. Segment it without --dicom-seg and --dicom-sr."
        )
    labels = labels.astype(np.uint8) if count < 256 else labels
    images = [dcmread(image.path, stop_before_pixels=True, force=True) for image in series.images]
    origin = [
        images[0].get("SeriesInstanceUID", ""),
        model["sha256"],
        hashlib.sha256(mask.voxels.tobytes()).hexdigest(),
    ]

    def uid(of: str) -> str:
        return str(generate_uid(entropy_srcs=[*origin, of]))

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="planar3d",
        family=codes.DCM.ArtificialIntelligence,
        version=planar3d.__version__,
        parameters={"model": str(model["name"]), "sha256": str(model["sha256"])},
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Lesion {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=uid(f"lesion {number}"),
            tracking_id=f"lesion {number}",
            anatomic_regions=[codes.SCT.Brain],
        )
        for number in range(1, max(count, 1) + 1)
    ]
    try:
        between = round(float(np.linalg.norm(grid_of(series)[:3, 2])), 6)
        for image in images:
            _complete(image, str(model["name"]), between)
        if len({image.SOPInstanceUID for image in images}) < len(images):
            raise ValueError("several images have the same SOPInstanceUID")
        made = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=labels,
            segmentation_type="BINARY",
            omit_empty_frames=bool(labels.any()),
            segment_descriptions=segments,
            series_instance_uid=uid("series"),
            series_number=series.number + _AFTER,
            sop_instance_uid=uid("instance"),
            instance_number=1,
            manufacturer="planar3d",
            manufacturer_model_name="planar3d",
            software_versions=planar3d.__version__,
            device_serial_number=str(model["sha256"])[:16],
            content_label="LESIONS",
            content_description="Lesions found by a network",
            series_description=f"Lesions of {series.description}"[:64],
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ScanError(
            f"{series.images[0].path}: series {series} cannot be referenced by a DICOM Segmentation object ({error}). "
            "Segment it without --dicom-seg and --dicom-sr, or export it again with its complete headers."
        ) from None
    with written_beside(path) as temporary:
        made.save_as(temporary)
    return Path(path)


def _complete(image: Any, model: str, between: float) -> None:
    """Add elements that highdicom expects: empty ones, and shared properties of frames in the shared groups.

    The spacing of slices follows from their positions in mm; a missing thickness becomes equal to the spacing.

    A character set becomes UTF-8 if highdicom does not accept it (code extensions for Japanese or Korean, an empty one)
    or if it may lack letters of the model's name. Invalid dates, times and sexes, e.g. from anonymizers, become empty.
    """
    from highdicom.enum import PatientSexValues
    from pydicom.valuerep import DA, DS, TM

    kinds = {"PatientBirthDate": DA, "PatientSex": PatientSexValues, "StudyDate": DA, "StudyTime": TM}
    if not (model.isascii() and str(image.get("SpecificCharacterSet", _UTF_8)).startswith(_ONE_SET)):
        image.decode()
        image.SpecificCharacterSet = _UTF_8
    for keyword in _NEVER_EMPTY.split():
        if not image.get(keyword, True):
            delattr(image, keyword)
    for keyword in _MAY_BE_EMPTY.split():
        try:
            if value := image.get(keyword):
                kinds.get(keyword, str)(value)
        except ValueError:
            value = None
        setattr(image, keyword, value)
    for frame in (image.get("PerFrameFunctionalGroupsSequence") or [])[:1]:
        for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):  # checked to be the same for all
            if keyword in frame:
                setattr(image.SharedFunctionalGroupsSequence[0], keyword, frame[keyword].value)
    shared: Any = next(iter(image.get("SharedFunctionalGroupsSequence") or []), {})
    measures = next(iter(shared.get("PixelMeasuresSequence") or []), image)
    measures.SliceThickness = DS(measures.get("SliceThickness") or between, auto_format=True)
    measures.SpacingBetweenSlices = DS(between, auto_format=True)
