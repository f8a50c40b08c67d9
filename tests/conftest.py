"""One thread: tensors of tests are so small that threads only wait for each other, and sums come out the same
anywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
