"""Aerial scene images: reading, the held-out split, and what each scene class is made of."""

from __future__ import annotations

import io
import logging
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from special_steps.core.atomic import atomic_write

log = logging.getLogger("bundled_clip")

SIDE = 160  # px; every image is kept at this size
ARCHIVES = ("aid", "ucm", "rsscn7")

PARTS = (
    "water",
    "trees",
    "grass",
    "shrubs",
    "soil",
    "sand",
    "crop",
    "rock",
    "road",
    "parking",
    "roof",
    "court",
    "boats",
    "railway",
    "airplane",
    "shadow",
)

# What scenes of a class are made of, as area fractions in percent: a reader's estimate, used as
# the known proportions when the parts are learned (parts.py). A part not named does not occur.
SCENES: dict[str, str] = {
    "aid/Airport": "road 50 roof 20 grass 15 soil 10 trees 5",
    "aid/BareLand": "soil 90 grass 5 rock 5",
    "aid/BaseballField": "grass 50 soil 15 trees 15 road 12 roof 8",
    "aid/Beach": "water 50 sand 45 trees 5",
    "aid/Bridge": "water 50 road 25 trees 10 roof 10 grass 5",
    "aid/Center": "roof 48 road 25 trees 15 grass 6 shadow 6",
    "aid/Church": "roof 43 trees 20 road 20 grass 9 shadow 8",
    "aid/Commercial": "roof 50 road 24 trees 12 shadow 14",
    "aid/DenseResidential": "roof 60 trees 25 road 15",
    "aid/Desert": "sand 70 soil 30",
    "aid/Farmland": "crop 80 soil 10 road 5 trees 5",
    "aid/Forest": "trees 100",
    "aid/Industrial": "roof 50 road 30 grass 8 soil 7 trees 5",
    "aid/Meadow": "grass 100",
    "aid/MediumResidential": "roof 35 trees 35 road 15 grass 15",
    "aid/Mountain": "rock 45 trees 45 soil 10",
    "aid/Park": "trees 35 grass 20 water 15 road 15 roof 15",
    "aid/Parking": "parking 75 road 10 trees 8 roof 5 grass 2",
    "aid/Playground": "grass 40 court 25 road 13 trees 12 roof 10",
    "aid/Pond": "water 50 grass 15 trees 15 soil 15 road 5",
    "aid/Port": "water 55 boats 17 road 14 roof 14",
    "aid/RailwayStation": "railway 40 roof 38 trees 12 road 10",
    "aid/Resort": "roof 30 trees 30 water 15 grass 10 road 10 sand 5",
    "aid/River": "water 40 trees 30 grass 15 soil 10 crop 5",
    "aid/School": "roof 35 trees 25 road 15 court 15 grass 10",
    "aid/SparseResidential": "trees 60 grass 15 roof 12 soil 8 road 5",
    "aid/Square": "road 40 trees 25 roof 20 grass 15",
    "aid/Stadium": "roof 45 road 25 grass 20 trees 5 court 5",
    "aid/StorageTanks": "roof 40 soil 20 road 20 grass 15 trees 5",
    "aid/Viaduct": "road 50 grass 20 trees 20 roof 10",
    "ucm/agricultural": "crop 100",
    "ucm/airplane": "road 65 airplane 25 grass 10",
    "ucm/baseballdiamond": "grass 50 soil 40 trees 10",
    "ucm/beach": "sand 50 water 50",
    "ucm/buildings": "roof 65 road 20 parking 10 trees 5",
    "ucm/chaparral": "shrubs 65 soil 35",
    "ucm/denseresidential": "roof 50 road 20 trees 20 grass 10",
    "ucm/forest": "trees 100",
    "ucm/freeway": "road 55 grass 25 soil 15 trees 5",
    "ucm/golfcourse": "grass 70 trees 15 sand 10 water 5",
    "ucm/harbor": "boats 48 water 45 road 7",
    "ucm/intersection": "road 60 roof 15 trees 10 grass 10 soil 5",
    "ucm/mediumresidential": "roof 35 trees 30 road 15 grass 20",
    "ucm/mobilehomepark": "roof 60 road 20 trees 15 grass 5",
    "ucm/overpass": "road 65 grass 20 soil 10 trees 5",
    "ucm/parkinglot": "parking 90 road 5 trees 5",
    "ucm/river": "water 40 trees 35 soil 15 grass 10",
    "ucm/runway": "road 75 grass 20 soil 5",
    "ucm/sparseresidential": "trees 30 roof 20 grass 20 soil 20 road 10",
    "ucm/storagetanks": "roof 35 road 25 soil 20 grass 20",
    "ucm/tenniscourt": "court 40 trees 20 grass 15 road 15 roof 10",
    "rsscn7/Grass": "grass 85 trees 8 soil 7",
    "rsscn7/Forest": "trees 90 soil 5 grass 5",
    "rsscn7/Field": "crop 85 soil 10 grass 5",
    "rsscn7/Industry": "roof 45 road 30 grass 10 parking 10 trees 5",
    "rsscn7/Parking": "parking 60 road 20 roof 10 trees 5 grass 5",
    "rsscn7/Resident": "roof 40 trees 25 road 20 grass 15",
    "rsscn7/RiverLake": "water 50 trees 25 grass 10 soil 10 roof 5",
}
SCENE_NAMES = tuple(SCENES)


@dataclass(frozen=True)
class Aerial:
    """Images (N, 160, 160, 3) uint8, scene index (N,) and the held-out mask (N,)."""

    images: np.ndarray
    scenes: np.ndarray
    held_out: np.ndarray


def proportions() -> np.ndarray:
    """Area fraction (scene, part) of every part in every scene class; rows add up to 1."""
    table = np.zeros((len(SCENES), len(PARTS)), np.float32)
    for row, text in zip(table, SCENES.values(), strict=True):
        words = text.split()
        for part, percent in zip(words[::2], words[1::2], strict=True):
            row[PARTS.index(part)] = float(percent)
    return table / table.sum(1, keepdims=True)


def is_held_out(name: str) -> bool:
    """True for the tenth of the files that never train anything (a hash of the name decides)."""
    return zlib.crc32(name.encode()) % 10 == 0


def load(source: Path, cache: Path | None = None) -> Aerial:
    """Read aid.tar, ucm.tar and rsscn7.tar from `source`; `cache` keeps the decoded images."""
    if cache is not None and (cache / "images.npy").exists():
        images = np.load(cache / "images.npy")
        scenes, held_out = np.load(cache / "labels.npy")
        return Aerial(images, scenes, held_out.astype(bool))
    arrays, scenes, held_out = [], [], []
    for archive in ARCHIVES:
        path = source / f"{archive}.tar"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such archive; --aerial names the folder of {ARCHIVES}"
            )
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream is None:  # a folder
                    continue
                scenes.append(SCENE_NAMES.index(member.name.rsplit("/", 1)[0]))
                held_out.append(is_held_out(member.name))
                with Image.open(io.BytesIO(stream.read())) as image:
                    small = image.convert("RGB").resize(
                        (SIDE, SIDE),
                        Image.Resampling.BOX if image.width > SIDE else Image.Resampling.BICUBIC,
                    )
                arrays.append(np.asarray(small))
    data = Aerial(np.stack(arrays), np.array(scenes), np.array(held_out))
    log.info("aerial: %d images, %d held out", len(arrays), int(data.held_out.sum()))
    if cache is not None:
        for name, array in (
            ("labels.npy", np.stack([data.scenes, data.held_out])),
            ("images.npy", data.images),  # last: it says that the cache is whole
        ):
            with atomic_write(cache / name) as file:
                np.save(file, array)
    return data
