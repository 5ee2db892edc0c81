"""The photographs that come with the library: 24, annotated, no download.

How they were chosen, before any network saw them: of COCO 2017 the first pictures by id with a licence that allows to show them
(CC BY, or no known restrictions), 2 to 12 annotations, no crowd and a largest object of 5 to 60 % of the picture, one for each
category of that object, eight; of Pixabay the first by list of each category still missing, uploaded while its pictures were CC0,
nine; of the endangered animals the first of each kind in which no person is seen, seven. Longest side 480 px at most.
None of them is in a training set of the networks that come with the library. Origins and licences: photographs/README.md.
"""

from pathlib import Path

from fairseg_lite.data.coco import CocoDataset

FOLDER = Path(__file__).parent / "photographs"


def photographs() -> CocoDataset:
    """The 24 photographs as a data set; those of COCO are annotated whole, the others in the kinds they were chosen for.

    Example:
        >>> photos = photographs()
        >>> len(photos), photos[7].image.shape, [photos.categories[k] for k in photos[7].labels][:2]
        (24, (305, 480, 3), ['potted plant', 'cat'])

    Lesson: 00.
    """
    return CocoDataset(FOLDER)
