"""Find the faces of planned volumes, and keep which pixels of each file they are.

What is kept is identified: it lies in the work directory only.
"""

import io
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from dicomdask import faces, header, pixels, plan, rows, storage
from dicomdask.errors import InputError
from dicomdask.model import Instance, PlannedFrame, PlannedVolume, SourceFile
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.decode import Decoded
from dicomdask.tasks.encode import Context, open_context, read_here
from dicomdask.tasks.faces import blame_faces, height, read_values
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.sources import Portion
from dicomdask.work import Work

FOLDER = "faces"
"""The work directory below that of files: removed as a whole when anybody is."""

Masks = dict[int, NDArray[np.bool_]]
"""The masks of a file's frames, by their numbers from 0."""


def masks_work(work: Work) -> Work:
    """Return where volumes are planned, and their masks kept, of a work directory."""
    return Work(work.path(FOLDER))


@measured
def mask_part(name: str, *, work_url: str) -> Counts:
    """Find the faces of all volumes of one part of the plan; return counts."""
    work = Work(work_url)
    context = open_context(work, work.require_job())
    with quiet():
        for volume in work.read_plan(name).volumes:
            note = ("masks", f"{volume.volume_id}-{volume.revision}.json")
            if work.read_note(*note) is None:
                _mask_volume(volume, context)
                work.write_note({}, *note)
    return {"parts": 1, "piece_bytes": 0, "found": {}}


def _mask_volume(volume: PlannedVolume, context: Context) -> None:
    """Write the masks of a volume's files; nothing where no face is found."""
    is_tiled = any(frame.tile is not None for frame in volume.frames)
    if not volume.affine or "c" in volume.dimensions or is_tiled:
        return
    try:
        found = _files(volume, context)
    except InputError:
        return  # its files have no mask, and are refused
    for url, data in found.items():
        with storage.room_at(context.work.url):
            storage.write(url, data)


def _files(volume: PlannedVolume, context: Context) -> dict[str, bytes]:
    """Return the masks of each file, by where they are kept."""
    face = _find(volume, context)
    if face is None:
        return {}
    files: dict[str, list[PlannedFrame]] = {}
    for frame in volume.frames:
        url = _url(context.work, frame.source_key, frame.token, context.key)
        files.setdefault(url, []).append(frame)
    affine = np.asarray(volume.affine).reshape(4, 4)
    shape = volume.frame_shape
    masks: dict[str, bytes] = {}
    for url, frames in files.items():
        found: Masks = {}
        for frame in frames:
            args = (shape, height(volume, frame), affine, face)
            mask = blame_faces(faces.face_mask, *args)
            found[frame.frame] = np.zeros(shape, bool) if mask is None else mask
        masks[url] = _packed(found)
    return masks


def _find(volume: PlannedVolume, context: Context) -> faces.Face | None:
    """Return the face of a volume that may show one, or is CT."""
    regions, modalities = set[str](), set[str]()

    def read(portion: Portion, data: bytes, of: PlannedVolume) -> Decoded:
        found = read_here(context, portion, data, of)
        regions.add(found[1][0].region)
        modalities.add(str(rows.attribute(found[1][0].header, "Modality")))
        return found

    extents = dict(zip(volume.dimensions, volume.shape, strict=True))
    sizes = tuple(extents.get(axis, 1) for axis in "zyx")
    affine = np.asarray(volume.affine).reshape(4, 4)
    wanted = {*faces.sampled(affine, sizes[0])}
    planes = list(read_values(volume, wanted, read))
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


def _read_masks(work: Work, file: SourceFile, key: Key) -> Masks | None:
    """Return the masks of a file as it was listed; None where no face was found."""
    source_key = plan.source_key(file.url, key)
    try:
        data = storage.read(_url(masks_work(work), source_key, file.token, key))
    except FileNotFoundError:
        return None
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


def remove_face(
    dataset: FileDataset,
    instance: Instance,
    file: SourceFile,
    policy: Policy,
    *,
    work: Work,
    key: Key,
) -> FileDataset:
    """Return a file without its face, where the policy wants that and it may have one.

    Raises
    ------
    InputError
        `unclean-faces` where it may show one and cannot be cleaned.
    """
    if not policy.cleans_faces:
        return dataset
    region = faces.region_of(header.body_texts(dataset))
    may = faces.may_show_face(instance.modality, [region], (), ())
    masks = blame_faces(_read_masks, work, file, key)
    if masks is None:
        if may:
            raise InputError("unclean-faces", NOT_FOUND)
        return dataset
    return _without(dataset, masks)


def _without(dataset: FileDataset, masks: Masks) -> FileDataset:
    frames = range(len(pixels.FrameDecoder(dataset)))
    syntax = dataset.file_meta.TransferSyntaxUID
    # Units of 8 x 8 pixels would go, and with them what is near the brain.
    is_lossy = syntax in {JPEGBaseline8Bit, JPEGExtended12Bit}
    if set(masks) != set(frames) or is_lossy:
        raise InputError("unclean-faces", NOT_FOUND)
    try:
        found = pixels.blank_frames(dataset, [masks[number] for number in frames])
    except InputError as error:
        if error.code != "unclean-pixels":
            raise
        raise InputError("unclean-faces") from None
    found.dataset.RecognizableVisualFeatures = "NO"
    return found.dataset
