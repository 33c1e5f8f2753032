"""The draws of docs/algorithm.md in plain Python: sections 1 to 3 of the page, which ``oracle`` goes on from.

Written from that page alone, without code of the package. Words are integers.
"""

from collections.abc import Sequence
from functools import lru_cache

WORD = 0xFFFFFFFF
KEEP, DEAL, SHUFFLE = 1, 2, 3


# 1. The generator


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xCD9E8D57 * c2, 0xD2511F53 * c0
        c0, c1, c2, c3 = (a >> 32) ^ c1 ^ k0, a & WORD, (b >> 32) ^ c3 ^ k1, b & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


@lru_cache(maxsize=256)
def draw(seed: int, item: int, epoch: int, purpose: int) -> tuple[int, int, int, int]:
    return philox((item & WORD, item >> 32 & WORD, epoch, purpose), (seed & WORD, seed >> 32 & WORD))


# 2. Permutations


class Permutation:
    """A permutation of [0, n)."""

    def __init__(self, n: int, seed: int, purpose: int, epoch: int, stream: int) -> None:
        self.n = n
        self.shift = (n - 1).bit_length() // 2
        self.columns = 1 << self.shift
        self.rows = ((n - 1) >> self.shift) + 1
        rounds = 8 if n >= 1024 else 24
        words = [word for b in range(rounds // 4) for word in draw(seed, stream * 2**32 + b, epoch, purpose)]
        self.rounds = list(enumerate(words))

    @staticmethod
    def _f(half: int, key: int, m: int) -> int:
        h = (half ^ key) * 0x9E3779B1 & WORD
        h ^= h >> 15
        h = h * 0x85EBCA77 & WORD
        return h * m >> 32

    def _network(self, x: int, sign: int) -> int:
        row, column = x >> self.shift, x % self.columns
        for i, key in self.rounds[::sign]:
            if i % 2 == 0:
                row = (row + sign * self._f(column, key, self.rows)) % self.rows
            else:
                column = (column + sign * self._f(row, key, self.columns)) % self.columns
        return (row << self.shift) + column

    def _walk(self, x: int, sign: int) -> int:
        x = self._network(x, sign)
        while x >= self.n:
            x = self._network(x, sign)
        return x

    def permute(self, x: int) -> int:
        return self._walk(x, 1)

    def invert(self, x: int) -> int:
        return self._walk(x, -1)


# 3. Slots


def shard(n: int, world: int, rank: int) -> range:
    """The slots of a rank."""
    rows = -(-n // 8)
    return range(min(n, rank * rows // world * 8), min(n, (rank + 1) * rows // world * 8))


@lru_cache(maxsize=64)
def ids_of_slots(n: int, seed: int) -> tuple[int, ...]:
    """deal^-1 of every slot."""
    deal = Permutation(n, seed, DEAL, 0, 0)
    return tuple(deal.invert(slot) for slot in range(n))
