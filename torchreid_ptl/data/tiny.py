"""A handful of drawn pedestrians, for dry runs."""

from .drawn import DrawnPedestrians, Recipe


class TinyDrawnPedestrians(DrawnPedestrians):
    """:class:`DrawnPedestrians` in small: drawn in a blink.

    Dataset statistics:
        - identities: 4 (train) + 3 (test), and 1 distractor.
        - images: 16 (train) + 6 (query) + 10 (gallery), 2 cameras.
    """

    dataset_dir = "drawn_pedestrians_tiny"
    recipe = Recipe(train_ids=4, test_ids=3, distractor_ids=1, cameras=2, images_per_camera=2)
