"""Find the faces of planned volumes, and keep which pixels of each file they are.

What is kept is identified: it lies in the work directory only.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from dicomdask import faces, header, pixels, plan, rows, storage, tables
from dicomdask.errors import InputError
from dicomdask.model import Instance, PlannedFrame, PlannedVolume, SourceFile
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.decode import Decoded, Reader
from dicomdask.tasks.encode import Context, open_context, read_apart, warm_context
from dicomdask.tasks.faces import blame_faces, height, read_values
from dicomdask.tasks.isolate import lent_cell
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.sources import Portion
from dicomdask.work import Work

FOLDER = "faces"
"""The work directory below that of files: removed as a whole when anybody is."""

BY_BLOCKS = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
"""Of which units of 8 x 8 pixels would go, and with them what is near the brain."""

RENEWED = "renewed"
"""Which files have other masks than before, below it; read and removed by a run."""

Masks = dict[int, NDArray[np.bool_]]
"""The masks of a file's frames, by their numbers from 0."""


def masks_work(work: Work) -> Work:
    """Return where volumes are planned, and their masks kept, of a work directory."""
    return Work(work.path(FOLDER))


@measured
def mask_part(name: str, *, work_url: str) -> Counts:
    """Find the faces of all volumes of one part of the plan; return counts.

    A series whose volumes are others than before gets all of its masks anew.
    """
    work = Work(work_url)
    job = work.require_job()
    context = open_context(work, job)
    series: dict[str, list[PlannedVolume]] = {}
    for volume in work.read_plan(name).volumes:
        series.setdefault(volume.series_key, []).append(volume)
    with quiet(), lent_cell(warm_context, job) as cell:
        read = partial(read_apart, cell, job, context)
        for volumes in series.values():
            notes = [("masks", f"{v.volume_id}-{v.revision}.json") for v in volumes]
            if any(work.read_note(*note) is None for note in notes):
                _mask_series(volumes, context, read)
                for note in notes:
                    work.write_note({}, *note)
    return {"parts": 1, "piece_bytes": 0, "found": {}}


def _mask_series(
    volumes: Sequence[PlannedVolume], context: Context, read: Reader
) -> None:
    """Write the masks of a series' files, and which files they are."""
    found: dict[str, Masks] = {}
    for volume in volumes:
        with suppress(InputError):  # its files have no mask, and are refused
            for url, masks in _masks(volume, context, read).items():
                found.setdefault(url, {}).update(masks)
    frames = {frame.url: frame for volume in volumes for frame in volume.frames}
    every = [_mask_url(frame, context) for frame in frames.values()]
    with storage.room_at(context.work.url):
        storage.remove_all([url for url in every if url not in found])
        for url, masks in found.items():
            storage.write(url, _packed(masks))
        files = [SourceFile(f.url, f.size, f.etag, f.token) for f in frames.values()]
        data = tables.records_to_parquet(SourceFile, files)
        name = f"{volumes[0].series_key}.parquet"
        storage.write(context.work.path(RENEWED, name), data)


def _masks(volume: PlannedVolume, context: Context, read: Reader) -> dict[str, Masks]:
    """Return the masks of each file, by where they are kept; none without a face."""
    is_tiled = any(frame.tile is not None for frame in volume.frames)
    if not volume.affine or "c" in volume.dimensions or is_tiled:
        return {}
    face = _find(volume, context, read)
    if face is None:
        return {}
    affine = np.asarray(volume.affine).reshape(4, 4)
    shape = volume.frame_shape
    masks: dict[str, Masks] = {}
    for frame in volume.frames:
        args = (shape, height(volume, frame), affine, face)
        mask = blame_faces(faces.face_mask, *args)
        of_file = masks.setdefault(_mask_url(frame, context), {})
        of_file[frame.frame] = np.zeros(shape, bool) if mask is None else mask
    return masks


def _find(volume: PlannedVolume, context: Context, read: Reader) -> faces.Face | None:
    """Return the face of a volume that may show one, or is CT."""
    regions, modalities = set[str](), set[str]()

    def note(portion: Portion, data: bytes, of: PlannedVolume) -> Decoded:
        found = read(portion, data, of)
        regions.add(found[1][0].region)
        modalities.add(str(rows.attribute(found[1][0].header, "Modality")))
        return found

    extents = dict(zip(volume.dimensions, volume.shape, strict=True))
    sizes = tuple(extents.get(axis, 1) for axis in "zyx")
    affine = np.asarray(volume.affine).reshape(4, 4)
    wanted = {*faces.sampled(affine, sizes[0])}
    planes = list(read_values(volume, wanted, note))
    if len(modalities) != 1:
        return None
    [modality] = modalities
    shown = {"unknown"} if modality == "CT" else regions
    if not faces.may_show_face(modality, shown, volume.affine, sizes):
        return None
    seed = int(context.key.digest("face", volume.volume_id), 16)
    find = partial(faces.find_face, planes, affine, sizes[0], modality, seed)
    found: faces.Face | None = blame_faces(find)
    return found


def _mask_url(file: PlannedFrame, context: Context) -> str:
    return _url(context.work, file.source_key, file.token, context.key)


def _url(work: Work, source_key: str, token: str, key: Key) -> str:
    name = key.digest("face mask", source_key, token)
    return work.path("masks", name[:2], f"{name}.npz")


def _packed(masks: Masks) -> bytes:
    file = io.BytesIO()
    numbers = sorted(masks)
    bits = np.stack([np.packbits(masks[number]) for number in numbers])
    shape = masks[numbers[0]].shape
    np.savez_compressed(file, numbers=numbers, shape=shape, bits=bits)
    return file.getvalue()


def _unpacked(data: bytes) -> Masks:
    with np.load(io.BytesIO(data)) as told:
        shape = tuple(told["shape"].tolist())
        size = int(np.prod(shape))
        return {
            int(number): np.unpackbits(bits, count=size).reshape(shape).astype(bool)
            for number, bits in zip(told["numbers"], told["bits"], strict=True)
        }


NOT_FOUND = (
    "The file may show a face, and no head was found with confidence in its volume; "
    "leave it out."
)


def read_masks(
    dataset: FileDataset, instance: Instance, file: SourceFile, context: Context
) -> bytes | None:
    """Return the masks of a file as it was listed; None where none are wanted.

    Raises
    ------
    InputError
        `unclean-faces` where it may show a face, and has no mask.
    """
    if not context.policy.cleans_faces:
        return None
    source_key = plan.source_key(file.url, context.key)
    url = _url(masks_work(context.work), source_key, file.token, context.key)
    with suppress(FileNotFoundError):
        return storage.read(url)
    region = faces.region_of(header.body_texts(dataset))
    if faces.may_show_face(instance.modality, [region], (), ()):
        raise InputError("unclean-faces", NOT_FOUND)
    return None


def without_face(dataset: FileDataset, packed: bytes) -> FileDataset:
    """Return a file without its face.

    Raises
    ------
    InputError
        `unclean-faces` where it cannot be cleaned; or what decoding raises.
    """
    masks: Masks = blame_faces(_unpacked, packed)
    frames = range(len(pixels.FrameDecoder(dataset)))
    if set(masks) != set(frames):
        raise InputError("unclean-faces", NOT_FOUND)
    try:
        if dataset.file_meta.TransferSyntaxUID in BY_BLOCKS:
            dataset = pixels.without_loss(dataset)
        found = pixels.blank_frames(dataset, [masks[number] for number in frames])
    except InputError as error:
        if error.code != "unclean-pixels":
            raise
        raise InputError("unclean-faces") from None
    found.dataset.RecognizableVisualFeatures = "NO"
    return found.dataset
