"""The memory of a test, known before there are descriptors."""

import pytest
import torch

from torchreid_ptl.evaluation import EvaluationOptions
from torchreid_ptl.evaluation.memory import require_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(("images", "rerank"), [((3, 50_000), False), ((100_000, 40_000), True)])
def test_the_least_that_is_named_is_enough_and_less_is_not(images, rerank):
    with pytest.raises(ValueError, match=r"the least that works is \d+$") as caught:
        require_memory(*images, EvaluationOptions(memory_mb=1, rerank=rerank), CPU)
    least = int(str(caught.value).split()[-1])
    require_memory(*images, EvaluationOptions(memory_mb=least, rerank=rerank), CPU)
    with pytest.raises(ValueError, match="does not hold the distances" if rerank else "does not hold one query row"):
        require_memory(*images, EvaluationOptions(memory_mb=least - 1, rerank=rerank), CPU)
