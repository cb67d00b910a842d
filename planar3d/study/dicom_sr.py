"""The number and volumes of lesions as a DICOM structured report, which refers to their segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import planar3d
from planar3d.evaluation.lesion_table import Lesion
from planar3d.extras import extra
from planar3d.files import written_beside
from planar3d.scans.dicom_headers import quietly

_DIGITS = 3  # of volumes in mm³ after the point, as in the lesion table
_AFTER = 1000  # added to the segmentation's series number for the report's series


@quietly()
def write_dicom_sr(lesions: Sequence[Lesion], segmentation: str | Path, path: str | Path) -> Path:
    """Write a Comprehensive 3D SR with one measurement group for all lesions and one for each.

    The first has the count and the total volume; the others have the volume in mm³, the tracking identifiers of the
    segment, and a finding site in SNOMED CT: the infratentorial brain if that region is certain, else the brain, as
    planar3d has no codes for the other regions. Patient, study, images and algorithm are the segmentation's. The report
    counts as unverified.

    Args:
        lesions: `lesion_table` of a mask, optionally with regions; may be empty.
        segmentation: the file that `write_dicom_seg` made of that mask.

    Source: DICOM PS3.3, A.35.13; PS3.16, templates 1500, 1501, 1411; IHE Radiology, AI Results.
    """
    with extra("dicom"):
        from highdicom import sr
        from pydicom import Dataset, dcmread
        from pydicom.sr.codedict import Code, codes
        from pydicom.uid import generate_uid

    seg = dcmread(segmentation, stop_before_pixels=True)
    seen = [str(seg.SOPInstanceUID), planar3d.__version__, *(f"{each.region} {each.region_sure}" for each in lesions)]
    (source,) = seg.ReferencedSeriesSequence
    images = []
    for item in source.ReferencedInstanceSequence:
        images.append(image := Dataset())
        image.StudyInstanceUID, image.SeriesInstanceUID = seg.StudyInstanceUID, source.SeriesInstanceUID
        image.SOPClassUID, image.SOPInstanceUID = item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID
    (by,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    algorithm = sr.AlgorithmIdentification(by.AlgorithmName, by.AlgorithmVersion, [by.AlgorithmParameters])
    about = {"algorithm_id": algorithm, "finding_type": codes.SCT.Lesion}
    infratentorial = Code("21031007", "SCT", "Infratentorial brain structure")

    def volume(lesions: Sequence[Lesion], derivation: Code | None = None) -> Any:
        mm3 = round(sum(lesion.volume_ml for lesion in lesions) * 1000.0, _DIGITS)
        how = {"derivation": derivation, "method": codes.DCM.SumOfSegmentedVoxelMethodForVolume}
        return sr.Measurement(codes.SCT.Volume, mm3, codes.UCUM.CubicMillimeter, **how)

    counted = Code("246206008", "SCT", "Number of lesions"), len(lesions), Code("{lesions}", "UCUM", "lesions")
    number = sr.Measurement(*counted)
    number[0].MeasuredValueSequence[0].NumericValue = str(len(lesions))  # not 3.0
    whole = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(str(generate_uid(entropy_srcs=[seen[0], "lesions"])), "all lesions"),
        measurements=[number, volume(lesions, codes.SCT.Total)],
        finding_sites=[sr.FindingSite(codes.SCT.Brain)],
        source_images=[sr.SourceImageForMeasurementGroup(seg.SOPClassUID, seg.SOPInstanceUID)],
        **about,
    )
    groups: list[Any] = [whole]
    series = sr.SourceSeriesForSegmentation(source.SeriesInstanceUID)
    for lesion in lesions:
        segment = seg.SegmentSequence[lesion.lesion - 1]
        of = sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, segment.SegmentNumber, source_series=series)
        site = infratentorial if lesion.region == "infratentorial" and lesion.region_sure is True else codes.SCT.Brain
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
            referenced_segment=of,
            measurements=[volume([lesion])],
            finding_sites=[sr.FindingSite(site)],
            **about,
        )
        groups.append(group)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=str(generate_uid(entropy_srcs=["planar3d", seg.DeviceSerialNumber])),
        name="planar3d",
        model_name=seg.ManufacturerModelName,
        serial_number=seg.DeviceSerialNumber,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    context = sr.ObservationContext(observer_device_context=observer)
    made = sr.Comprehensive3DSR(
        evidence=[seg, *images],
        content=sr.MeasurementReport(context, codes.LN.BrainMRI, groups),
        series_instance_uid=str(generate_uid(entropy_srcs=[*seen, "series"])),
        series_number=seg.SeriesNumber + _AFTER,
        sop_instance_uid=str(generate_uid(entropy_srcs=[*seen, "instance"])),
        instance_number=1,
        manufacturer=seg.Manufacturer,
        manufacturer_model_name=seg.ManufacturerModelName,
        software_versions=seg.SoftwareVersions,
        device_serial_number=seg.DeviceSerialNumber,
        series_description=f"Report: {seg.SeriesDescription}"[:64],
        is_complete=True,
    )
    with written_beside(path) as temporary:
        made.save_as(temporary)
    return Path(path)
