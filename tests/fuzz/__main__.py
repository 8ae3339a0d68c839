"""`make fuzz`: every subject in turn, for FUZZ_SECONDS (600) in all, with the chance of FUZZ_SEED (another each time).

Arguments are names of subjects (all of them). Inputs that led to something new are kept in tests/fuzz/corpus, and so is one that broke
something.
"""

from __future__ import annotations

import os
import random
import sys

from tests.fuzz.engine import fuzz, keep
from tests.fuzz.subjects import SUBJECTS

#: So many inputs of one run are kept, the shortest: the corpus is for reading, too.
_MOST_KEPT = 60


def main() -> int:
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(2**32)
    names = sys.argv[1:]
    chosen = [subject for subject in SUBJECTS if not names or subject.name in names]
    broken = 0
    for subject in chosen:
        tally = fuzz(subject, seconds / len(chosen), random.Random(f"{seed}{subject.name}"))
        sys.stdout.write(
            f"{subject.name}: {tally.tried} inputs, {len(tally.outcomes)} outcomes, {len(tally.findings)} findings (seed {seed})\n"
        )
        for data in sorted(tally.kept, key=len)[:_MOST_KEPT]:
            if data not in subject.seeds and len(data) < 2000:
                keep(subject, data)
        for finding in tally.findings:
            broken += 1
            sys.stdout.write(f"{keep(subject, finding.data)}\n{finding.data!r}\n{finding.trace}\n")
        sys.stdout.flush()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
