"""Open files of the processes that load data."""

import os
import subprocess
import sys

import pytest
from support import ROOT

SCRIPT = """
import resource
import torch
from torch.utils.data import DataLoader
from vitdense.datasets.sharing import allow_many_files

most = {most}
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
allow_many_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], torch.multiprocessing.get_sharing_strategy())
data = [[torch.zeros(1)] * 20] * 8
batches = list(DataLoader(data, batch_size=4, num_workers=1, collate_fn=list))
print(sum(len(sample) for batch in batches for sample in batch))
"""


@pytest.mark.slow
@pytest.mark.parametrize(('most', 'expected'), [(2000, 'file_descriptor'), (100, 'file_system')])
def test_batches_of_many_tensors_pass_where_few_files_may_be_open(most, expected):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(most=most)], env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout.split() == [str(most), expected, '160'], done.stderr
