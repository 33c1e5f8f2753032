"""A short run of every kernel, for compute-sanitizer: two policies, duplicates, bad indices, a restart."""

import torch

from infobatch_fast import InfoBatch, QuantileTiers


def main() -> None:
    for policy in (None, QuantileTiers()):
        pruner = InfoBatch(5001, num_epochs=4, delta=1.0, policy=policy, device="cuda")
        for epoch in range(2):
            pruner.set_epoch(epoch)
            for ids in pruner.sampler.batches(1000):
                index = torch.tensor(ids + ids[:7], device="cuda")
                losses = torch.rand(len(index), device="cuda")
                losses[5] = torch.nan
                pruner.update(index, losses)
        pruner.set_epoch(2)
        pruner.update(pruner.sampler.indices(0, 100), torch.rand(100, device="cuda"))
        other = InfoBatch(5001, num_epochs=4, delta=1.0, policy=policy, device="cuda")
        other.load_state_dict(pruner.state_dict())
        assert list(other.sampler) == pruner.sampler.indices(100).tolist()
        assert other.stats.kept == pruner.stats.kept
        other.update(torch.tensor([-1, 5001, 3], device="cuda"), torch.ones(3, device="cuda"))
        torch.cuda.synchronize()
        try:
            _ = other.stats
        except IndexError as error:
            print("as it should be:", error)
        else:
            raise AssertionError("a bad index went unnoticed")


if __name__ == "__main__":
    main()
