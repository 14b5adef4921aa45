"""The host's training samplers, behind checks of what a batch of theirs needs."""

from dataclasses import dataclass
from typing import Any

from torch.utils.data import Sampler

from .. import host
from ..runtime.errors import ArgumentError

Images = list[tuple[Any, ...]]
"""The host's tuples (path, identity, camera, data set)."""
_GROUPS = {"RandomDomainSampler": ("camera", "num_cams", 2), "RandomDatasetSampler": ("data set", "num_datasets", 3)}
"""Of the samplers that take as many images from each of some groups: the group, the argument, its place in a tuple."""


@dataclass(frozen=True)
class Sampling:
    """A training sampler of the host with its arguments.

    Attributes:
        setting: the argument that names the sampler.
        images: what the images are, in words.
    """

    name: str = "RandomSampler"
    batch_size: int = 32
    num_instances: int = 4
    num_cams: int = 1
    num_datasets: int = 1
    setting: str = "train_sampler"
    images: str = "the training set"

    @classmethod
    def of(cls, kwargs: dict[str, Any], of_targets: bool = False) -> "Sampling":
        """That of the arguments of the host's data manager, for the sources or the targets."""
        setting = "train_sampler_t" if of_targets else "train_sampler"
        given = {"batch_size": kwargs.get("batch_size_train"), "name": kwargs.get(setting)}
        given |= {key: kwargs.get(key) for key in ("num_instances", "num_cams", "num_datasets")}
        images = "the training set of the targets" if of_targets else "the training set"
        return cls(**{key: value for key, value in given.items() if value is not None}, setting=setting, images=images)

    def build(self, train: Images) -> Sampler:
        """The sampler over these images.

        Raises:
            ValueError: fewer images, identities, cameras or data sets than a batch needs.
        """
        if len(train) < self.batch_size:
            raise ArgumentError(
                f"{{batch_size_train}} is {self.batch_size} and {self.images} has {len(train)} images: not one batch "
                f"could be filled. Choose at most {len(train)}."
            )
        if self.name == "RandomIdentitySampler":
            self._check_identities(train)
        elif self.name in _GROUPS:
            self._check_groups(train, *_GROUPS[self.name])
        numbers = {key: getattr(self, key) for key in ("batch_size", "num_instances", "num_cams", "num_datasets")}
        return host.build_train_sampler(train, self.name, **numbers)

    def _check_identities(self, train: Images) -> None:
        size, instances = self.batch_size, self.num_instances
        if size % instances or size < 2 * instances:
            raise ArgumentError(
                f"{{batch_size_train}} is {size} and {{num_instances}} {instances}: a batch of RandomIdentitySampler "
                f"holds whole groups of {instances} images, two identities at least. Choose {2 * instances}, "
                f"{3 * instances}, ..."
            )
        identities = len({item[1] for item in train})
        if size // instances > identities:
            raise ArgumentError(
                f"{{{self.setting}}} is {self.name}: a batch of {size} with {instances} images each needs "
                f"{size // instances} identities; {self.images} has {identities}. Lower {{batch_size_train}} or raise "
                "{num_instances}."
            )

    def _check_groups(self, train: Images, noun: str, argument: str, place: int) -> None:
        groups: dict[Any, list[str]] = {}
        for item in train:
            groups.setdefault(item[place], []).append(item[0])
        count = getattr(self, argument)
        count = count if count and count > 0 else len(groups)  # as the host does
        start = f"{{{self.setting}}} is {self.name}: "
        if self.batch_size % count:
            raise ArgumentError(
                f"{start}{{batch_size_train}} is {self.batch_size} and must divide by {{{argument}}}, {count}"
            )
        if count > len(groups):
            raise ArgumentError(
                f"{start}{{{argument}}} is {count}, and {self.images} has {len(groups)} {noun}(s). Choose at most "
                f"{len(groups)}"
            )
        each = self.batch_size // count
        for number, paths in sorted(groups.items()):
            if len(paths) < each:
                raise ArgumentError(
                    f"{start}a batch takes {each} images of each of its {count} {noun}s, and {noun} {number + 1} "
                    f"({noun} {number} in torchreid, which counts from 0; for example {paths[0]}) has {len(paths)}. "
                    f"Lower {{batch_size_train}}, raise {{{argument}}}, or leave the {noun} out"
                )
