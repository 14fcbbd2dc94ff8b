"""Read the pictures and masks of listed views one at a time, and leave out those that are damaged."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.decode import QUARTER_TURNS, Header, largest_value, read_header
from warpdvr.datasets.entries import Entry, Listing
from warpdvr.datasets.files import PICTURE_SUFFIXES, find_subfolder, require_view_count
from warpdvr.datasets.find import Finder
from warpdvr.datasets.formats import Capture, Detection, ReadOptions
from warpdvr.datasets.images import (
    ALPHA,
    MaskSet,
    Photographs,
    bits_of_set,
    decode_picture,
    describe_depth_of_colour,
    is_transparent,
    scaled_size,
)
from warpdvr.datasets.left_out import LeftOut
from warpdvr.datasets.masks import masks_beside, match_masks, read_mask, require_object, warn_if_inverted

Image = UInt8[Tensor, "_ _ 3"]
Mask = Bool[Tensor, "_ _"]


@dataclass(frozen=True)
class Source:
    """The picture of a view, not yet decoded, and its camera."""

    header: Header
    camera: Camera
    """For the picture as it is decoded, before it is scaled down, in the data's own frame."""
    turned: bool
    """Whether the picture is turned as its EXIF data say."""
    doubtful: bool
    """Whether nothing tells if it should be."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture as it is decoded, before it is scaled down [pixel]."""
        return self.camera.width, self.camera.height


MASKS_WANTED = "give masks that are white on the object, in a folder masks, with the names of their pictures"
"""What to do about missing masks."""


def gather(data: Detection, listing: Listing, options: ReadOptions) -> Capture:
    """Read the pictures and masks of listed views, one at a time.

    Views whose camera, picture or mask is damaged or missing are left out, with a warning that names them all. A
    picture is turned as its EXIF data say if its camera is for the turned size only.

    Raises:
        ValueError: if one view in ten or more cannot be used; see `LeftOut`.
    """
    entries, folder = listing.entries, data.folder
    require_view_count(data.camera_files[0], len(entries), options.min_views)
    left_out = LeftOut(folder, [entry.picture for entry in entries])
    sources, moved = _find_sources(folder, listing, left_out)
    left_out.drop_unpictured_test([bool(entry.held_out) for entry in entries])
    left_out.check()
    pictures = {i: sources[i].header.path for i in left_out.kept}
    has_alpha = any(sources[i].header.alpha for i in pictures)
    if not has_alpha and not any(entry.mask for entry in entries) and options.notice:
        if not any(_mask_paths(folder, listing, pictures, left_out)[0].values()):
            options.notice(f"{folder}: no masks: only colours tell the object from its surroundings; {MASKS_WANTED}")
    images, alphas, bits = _decode_pictures({i: sources[i] for i in pictures}, left_out, options)
    left_out.check()
    masks, mask_source = _masks(listing, folder, sources, alphas, left_out, options)
    left_out.check()
    kept = left_out.kept
    require_view_count(data.camera_files[0], len(kept), options.min_views)
    used = [sources[i] for i in kept]
    found = Photographs(tuple(s.header.path for s in used), tuple(images[i] for i in kept), (None,) * len(kept))
    mask_set = MaskSet(tuple(masks[i] for i in kept), mask_source)
    _warn_of_oddities(folder, found, mask_set, used)
    notes = describe_depth_of_colour([s.header for s in used], bits) + _describe_places(used, moved) + left_out.warn()
    return _capture(listing, options, found, mask_set, used, kept, notes)


def _masks(
    listing: Listing,
    folder: Path,
    sources: dict[int, Source],
    alphas: dict[int, UInt8[Tensor, "_ _"] | None],
    left_out: LeftOut,
    options: ReadOptions,
) -> tuple[dict[int, Mask | None], str]:
    """Return the masks that the entries name, else those of the alpha channels, else those in files; and where from."""
    if not any(entry.mask for entry in listing.entries) and any(map(is_transparent, alphas.values())):
        return _masks_of_alpha(sources, alphas, left_out), ALPHA
    alphas.clear()
    paths, source = _mask_paths(folder, listing, {i: sources[i].header.path for i in left_out.kept}, left_out)
    masks, soft = _read_masks(sources, paths, left_out, options)
    return masks, source + (", soft: cut at half" if soft else "")


def _capture(
    listing: Listing,
    options: ReadOptions,
    photographs: Photographs,
    masks: MaskSet,
    sources: Sequence[Source],
    kept: tuple[int, ...],
    notes: str,
) -> Capture:
    """Return what was read, with cameras for pictures of their size."""
    said = [entry.held_out for entry in listing.entries]
    test = tuple(k for k, i in enumerate(kept) if said[i])
    has_split = any(held is not None for held in said) and (bool(test) or not any(said))
    sizes = tuple(source.size for source in sources)
    scaled = list(sizes) != photographs.sizes
    if scaled:
        notes += f" Scaled down to at most {options.max_pixels} pixels each."
    return Capture(
        photographs,
        masks,
        tuple(s.camera.resized(*size) for s, size in zip(sources, photographs.sizes, strict=True))
        if scaled
        else tuple(s.camera for s in sources),
        camera_file=listing.camera_file,
        conventions=listing.conventions,
        test=test if has_split else None,
        others=tuple(entry.picture for i, entry in enumerate(listing.entries) if i not in kept),
        listed=() if len(kept) == len(listing.entries) else kept,
        stored_sizes=sizes if scaled else (),
        notes=notes,
    )


def _warn_of_oddities(folder: Path, photographs: Photographs, masks: MaskSet, sources: Sequence[Source]) -> None:
    """Warn of inverted masks, of turns that nothing decides, and of pictures that are all black."""
    warn_if_inverted(masks.masks, folder)
    _warn_of_doubtful_turns(folder, sources)
    if not any(bool(image.any()) for image in photographs.images):
        warnings.warn(f"{folder}: all pictures are black, expected photographs of an object", stacklevel=2)


def _describe_places(sources: Sequence[Source], moved: int) -> str:
    """Describe how many pictures were turned, or found elsewhere than their names say."""
    turned = sum(source.turned for source in sources)
    return (f" {turned} pictures turned as their EXIF data say." if turned else "") + (
        f" {moved} pictures found by the end of their path." if moved else ""
    )


def require_file(finder: Finder, name: str, label: str, what: str) -> Path:
    """Return the file of that name.

    Raises:
        ValueError: if there is none, or it lies outside of the folder.
    """
    path = finder.find(name)
    if path is None:
        expected = finder.folder / finder.subfolders[0] / name
        called = "" if label.endswith(name) else f" {name!r}"
        raise ValueError(f"{label}: the {what}{called} is missing, expected it at {expected}")
    return path


def _find_sources(folder: Path, listing: Listing, left_out: LeftOut) -> tuple[dict[int, Source], int]:
    """Return the picture and the camera of each view that has both, and how many pictures were found elsewhere."""
    finder = Finder(folder, listing.pictures, ("", *PICTURE_SUFFIXES))
    sources = {}
    for i, entry in enumerate(listing.entries):
        with left_out.trying(i):
            if entry.broken is not None:
                raise ValueError(entry.broken)
            sources[i] = _source(entry, read_header(require_file(finder, entry.picture, entry.label, "picture")))
    return sources, finder.moved


def _source(entry: Entry, header: Header) -> Source:
    """Return a picture with its camera, turned if the camera fits only then."""
    width, height = header.size
    if header.orientation not in QUARTER_TURNS:
        return Source(header, entry.camera(width, height), False, header.orientation != 1)
    stored, turned, reason = None, None, None
    try:
        stored = entry.camera(width, height)
    except ValueError as error:
        reason = error
    try:
        turned = entry.camera(height, width)
    except ValueError:
        if reason is not None:
            raise reason from None
    if stored is not None:
        return Source(header, stored, False, turned is not None)
    assert turned is not None
    return Source(header, turned, True, False)


def _mask_paths(
    folder: Path, listing: Listing, pictures: dict[int, Path], left_out: LeftOut
) -> tuple[dict[int, Path | None], str]:
    """Return the mask of each picture: those that the entries name, else those in a folder or beside the pictures."""
    if any(entry.mask for entry in listing.entries):
        finder = Finder(folder, ("", *listing.masks, *listing.pictures), ("", *PICTURE_SUFFIXES))
        named: dict[int, Path | None] = {}
        for i in pictures:
            entry = listing.entries[i]
            with left_out.trying(i):
                named[i] = None if entry.mask is None else require_file(finder, entry.mask, entry.label, "mask")
        return named, listing.mask_source
    subfolder = find_subfolder(folder, *listing.masks)
    if subfolder is None:
        found, source = masks_beside([*pictures.values()], folder), "beside the pictures (white = object)"
    else:
        others = [entry.picture for entry in listing.entries]
        found = match_masks([*pictures.values()], subfolder, folder, others)
        source = f"{subfolder.name}/ (white = object)"
    return dict(zip(pictures, found, strict=True)), source


def _decode_pictures(
    sources: dict[int, Source], left_out: LeftOut, options: ReadOptions
) -> tuple[dict[int, Image], dict[int, UInt8[Tensor, "_ _"] | None], int | None]:
    """Return the colours and the alpha channel of each picture, and the bits of those that have more than 8."""
    largest = []
    for i, source in sources.items():
        if source.header.deep:
            with left_out.trying(i):
                largest.append(largest_value(source.header.path))
    bits = bits_of_set(largest)
    images, alphas = {}, {}
    remaining = [i for i in left_out.kept if i in sources]
    sizes = [scaled_size(*sources[i].size, options.max_pixels) for i in remaining]
    pool = torch.empty(sum(w * h for w, h in sizes), 3, dtype=torch.uint8)  # one array, which a fit need not copy
    for done, (i, (w, h)) in enumerate(zip(remaining, sizes, strict=True)):
        place, pool = pool[: w * h].view(h, w, 3), pool[w * h :]
        path, turned = sources[i].header.path, sources[i].turned
        with left_out.trying(i):
            image, alphas[i] = decode_picture(path, upright=turned, bits=bits, size=(w, h))
            images[i] = place.copy_(image)
        if options.progress:
            options.progress((done + 1) / len(remaining), f"{done + 1} of {len(remaining)} pictures")
    return images, alphas, bits


def _read_masks(
    sources: dict[int, Source], paths: dict[int, Path | None], left_out: LeftOut, options: ReadOptions
) -> tuple[dict[int, Mask | None], bool]:
    """Return the mask of each view, and whether most are soft."""
    masks: dict[int, Mask | None] = {}
    soft = 0
    for i in left_out.kept:
        size, path = sources[i].size, paths[i]
        if path is None:
            masks[i] = None
            continue
        with left_out.trying(i):
            masks[i], is_soft = read_mask(path, size, scaled_size(*size, options.max_pixels))
            soft += is_soft
    return masks, 2 * soft > len(masks)


def _masks_of_alpha(
    sources: dict[int, Source], alphas: dict[int, UInt8[Tensor, "_ _"] | None], left_out: LeftOut
) -> dict[int, Mask | None]:
    masks: dict[int, Mask | None] = {}
    for i in left_out.kept:
        alpha = alphas.pop(i)
        with left_out.trying(i):
            masks[i] = None if alpha is None else require_object(alpha > 127, sources[i].header.path)
    return masks


def _warn_of_doubtful_turns(folder: Path, sources: Sequence[Source]) -> None:
    doubtful = [source.header.path.name for source in sources if source.doubtful]
    if doubtful:
        warnings.warn(
            f"{folder}: {len(doubtful)} pictures such as {doubtful[0]} are to be shown turned, as their EXIF data say, "
            "and their cameras fit both ways; they are read as stored. If the cameras are for the turned pictures, "
            "save those turned, without EXIF orientation",
            stacklevel=2,
        )
