"""All stages at once, as `dicomdask convert` and `dicomdask.convert` run them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from dicomdask import commits, pipeline, storage
from dicomdask.layout import parse_patch_size
from dicomdask.model import Codec, Irregular, Profile, Settings
from dicomdask.pseudonym import KeyReference, resolve_key
from dicomdask.steps.session import (
    Report,
    Session,
    default_work,
    locked,
    no_progress,
    open_session,
    require_work_place,
)
from dicomdask.steps.stages import index, make_plan, require_files
from dicomdask.steps.storing import Summary, commit, encode
from dicomdask.steps.target import (
    check_places,
    check_settings,
    set_target,
)
from dicomdask.work import CONTENTS


def convert(
    sources: str | Sequence[str],
    store: str,
    *,
    work: str | None = None,
    policy: str = "research",
    options: Sequence[str] = (),
    trust_pixels: Sequence[str] = (),
    key_file: str | None = None,
    profile: Profile = "balanced",
    patch_size: int | Sequence[int] | None = None,
    codec: Codec = "lz4",
    on_irregular: Irregular = "split",
    where: str | None = None,
    limit: int | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    insecure_scheduler: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | str | None = None,
    progress: Report = no_progress,
) -> Summary:
    """Convert DICOM into a dataset; resume or extend what an earlier run began.

    Parameters
    ----------
    sources
        Files, folders or glob patterns.
    store
        Where the dataset is, or will be.
    work
        The private directory of identified intermediates; by default `<store>.work`.
    policy
        `research`, `basic` or `none`.
    options
        Options of PS3.15 Annex E that the policy is to apply besides.
    trust_pixels
        Modalities whose pixels you know to hold no text, such as `DX`.
    key_file
        The key of the pseudonyms; else the variable `DICOMDASK_KEY`, else a key is
        made in the work directory.
    profile
        How the dataset will be read most: `slice`, `balanced` or `patch`.
    patch_size
        Cut chunks for patches of so many slices, rows and columns, instead of by the
        profile; one number for all three.
    codec
        How chunks are compressed: `none`, `lz4` or `zstd`.
    on_irregular
        Whether to `split` or `reject` slices that are not evenly spaced.
    where
        An expression over DICOM keywords: `Modality == 'CT'`.
    limit
        How many volumes to store at most.
    scheduler
        None: the current Dask client, else a local cluster fitted to the machine;
        `synchronous`, `threads`, `processes`, a `tls://` address or a scheduler file.
        Certificates come from Dask's configuration, `distributed.comm.tls`.
    memory
        What one worker of a local cluster may take, such as `4GiB`.
    insecure_scheduler
        Whether the address may be plain `tcp://` within this machine, where any of
        its users could run code on the workers.
    overwrite
        Whether to remove the store and begin anew.
    storage_options
        What opens object stores: credentials, endpoints; see `storage.use_options`.
        By default the environment says.
    progress
        Called with a `Progress` whenever a piece of work is done: its stage, how much
        of it is done of how much, seconds, bytes, and the outcomes so far.

    Returns
    -------
    Summary
        The newest commit, and what this run did.

    Raises
    ------
    DicomDaskError
        One sentence that says what, where, and what to do.
    """
    if storage_options is not None:
        storage.use_options(storage_options)
    names = [sources] if isinstance(sources, str) else list(sources)
    settings = Settings(
        policy=policy,
        options=tuple(options),
        trusted_pixels=tuple(trust_pixels),
        profile=profile,
        on_irregular=on_irregular,
        where=where,
        patch_size=None if patch_size is None else parse_patch_size(patch_size),
        codec=codec,
    )
    session = prepare(
        names,
        store,
        settings,
        work=work,
        key_file=key_file,
        limit=limit,
        scheduler=scheduler,
        memory=memory,
        insecure_scheduler=insecure_scheduler,
        overwrite=overwrite,
        progress=progress,
    )
    with session:
        return finish(session)


def finish(session: Session) -> Summary:
    """Encode and commit what a session planned."""
    session.n_encoded = encode(session)
    return commit(session)


def prepare(
    sources: Sequence[str],
    store: str,
    settings: Settings,
    *,
    work: str | None = None,
    key_file: str | None = None,
    limit: int | None = None,
    scheduler: str | None = None,
    memory: str | None = None,
    insecure_scheduler: bool = False,
    overwrite: bool = False,
    progress: Report = no_progress,
) -> Session:
    """Do all that comes before encoding, and return the open session.

    See `convert` for the parameters and errors.
    """
    target = storage.resolve(store)
    directory = default_work(target, work)
    check_places(target, directory)
    check_settings(settings, limit)
    pipeline.check_scheduler(scheduler, memory, insecure=insecure_scheduler)
    require_files(sources, exclude=(target, directory))
    if overwrite:
        if key_file is not None:
            resolve_key(KeyReference(key_file))
        with locked(directory) if storage.exists(directory) else nullcontext():
            _remove_dataset(target, directory)
    session = open_session(
        directory,
        key_file=key_file,
        scheduler=scheduler,
        memory=memory,
        insecure_scheduler=insecure_scheduler,
        progress=progress,
        create=True,
    )
    with ExitStack() as stack:
        stack.enter_context(session)
        set_target(session, target, settings, limit=limit)
        session.n_indexed = index(session, sources, exclude=(target, directory))
        make_plan(session)
        stack.pop_all()
    return session


def _remove_dataset(store: str, work: str) -> None:
    """Remove a dataset and its intermediates; the key stays."""
    require_work_place(work)
    if storage.exists(store):
        commits.require_dataset(store)
        storage.remove_tree(store)
    for name in storage.list_names(work):
        if name in CONTENTS:
            storage.remove_tree(storage.join(work, name))
