"""What every stage stands on: parameters, records, conversations, the language model.

Importing this package fixes the arithmetic mode of Intel MKL, which has to happen before torch is
imported: fp32 results then do not depend on the number of threads, at no cost in speed.
"""

import os

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
