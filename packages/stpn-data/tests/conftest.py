"""Small data sets; golden files are found by a helper of stpn-kernels, else those tests skip."""

import cv2
import numpy as np
import pytest

DOG, ZEBRA, OTHER = "n02084071", "n02391049", "n00007846"


@pytest.fixture(scope="session")
def shared_path():
    return pytest.importorskip("stpn_kernels.testing").shared_path


@pytest.fixture(scope="session")
def load_golden():
    return pytest.importorskip("stpn_kernels.testing").load_golden


@pytest.fixture
def write_image():
    """Write a grey image of (height, width) in pixels, with its folders."""

    def write(path, size=(48, 64), value=90):
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = ".png" if path.suffix == ".png" else ".jpg"
        path.write_bytes(cv2.imencode(suffix, np.full((*size, 3), value, np.uint8))[1].tobytes())

    return write


@pytest.fixture
def write_xml():
    """Write the XML file of an image with objects of (class, box), each a track if so asked."""

    def write(path, *objects, size=(48, 64), tracks=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [
            "<object>"
            + (f"<trackid>{3 * track}</trackid>" if tracks else "")
            + f"<name>{name}</name><bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin>"
            f"<ymax>{box[3]}</ymax><ymin>{box[1]}</ymin></bndbox></object>"
            for track, (name, box) in enumerate(objects)
        ]
        size_xml = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
        path.write_text(f"<annotation>{size_xml}{''.join(texts)}</annotation>")

    return write


@pytest.fixture
def ilsvrc(tmp_path, write_image, write_xml):
    """A training video of three frames, two of them key frames, and four images of DET.

    Of the images, the first has a dog and an object of another class, the second no objects and
    no XML file, the third an object of another class, the fourth a zebra; the list has the first
    two and the fourth. The second frame of the video is without objects.
    """
    root = tmp_path / "ILSVRC"
    for number in range(3):
        name = f"VID/train/x/a/{number:06d}"
        write_image(root / f"Data/{name}.JPEG", value=number)
        objects = [] if number == 1 else [(DOG, (1, 2, 11 + number, 22)), (ZEBRA, (5, 5, 40, 40))]
        write_xml(root / f"Annotations/{name}.xml", *objects, tracks=True)
    stills = {
        "train/ILSVRC2013_train/n1/n1_1": [(DOG, (1, 2, 30, 40)), (OTHER, (3, 4, 20, 20))],
        "train/ILSVRC2013_train/n1/n1_2": None,
        "train/ILSVRC2014_train_0000/b": [(OTHER, (1, 2, 30, 40))],
        "train/ILSVRC2014_train_0000/c": [(ZEBRA, (0, 0, 10.5, 20))],
    }
    for value, (name, objects) in enumerate(stills.items()):
        write_image(root / f"Data/DET/{name}.JPEG", (32, 40 + value), value)
        if objects is not None:
            path = root / f"Annotations/DET/{name}.xml"
            write_xml(path, *objects, size=(32, 40 + value))
    lists = root / "Lists"
    lists.mkdir()
    (lists / "VID_train_15frames.txt").write_text("train/x/a 1 1 3\ntrain/x/a 1 2 3\n")
    listed = [name for name in stills if not name.endswith("b")]
    (lists / "DET_train_30classes.txt").write_text("\n".join(f"{name} 1" for name in listed))
    return root
