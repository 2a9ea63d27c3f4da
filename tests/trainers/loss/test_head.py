"""What a head says of itself, against sums in double precision."""

from __future__ import annotations

import pytest
import torch

from qtarget.trainers.loss.head import SUMMED_ROWS, Head

WIDTH = 24


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("real", [1, SUMMED_ROWS, 3 * SUMMED_ROWS + 7])
def test_sum_of_the_real_rows(dtype: torch.dtype, real: int) -> None:
    """As exact as the compute dtype allows, however many rows; the padding behind them counts for nothing."""
    weight = torch.randn(3 * SUMMED_ROWS + 50, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    head = Head.build(weight, softcap=None, logit_scale=1.0, dtype=dtype, real_vocab=real)
    exact = weight[:real].double().sum(0)
    assert head.weight_sum.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    rounding = torch.finfo(head.weight_sum.dtype).eps * weight[:real].double().abs().sum(0).max()
    torch.testing.assert_close(head.weight_sum.double(), exact, rtol=0, atol=float(rounding))
    hidden = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)
    mean = (hidden.double() @ weight[:real].double().T).mean(1)
    torch.testing.assert_close(head.mean_logit(hidden).double(), mean, rtol=1e-5, atol=1e-5)
