"""Groups of parameters, and names of what an optimizer keeps."""

import torch

from tests.imagenet_sparsity_experiments.toy import build
from trainers.optimizers import optimizer_names, sgd, without_decay_of_norms


def test_batch_norms_have_no_weight_decay_whatever_they_are_called():
    model = build("allsparse20", num_classes=4)
    norms, others = groups = without_decay_of_norms(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)] for parameter in norms["params"]}
    assert "bn1.weight" in found
    assert {"layer2.0.downsample.1.weight", "layer2.0.downsample.1.bias"} <= found
    assert found == {name for name, parameter in model.named_parameters() if parameter.dim() == 1}
    assert len(norms["params"]) + len(others["params"]) == len(names)
    optimizer = sgd(groups, lr=0.1, momentum=0.9, weight_decay=0.5, nestorov=False)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.5]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] if name in found else 0.95 * before[name]
        torch.testing.assert_close(parameter.detach(), expected)


def test_names_are_in_the_order_of_the_groups():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(without_decay_of_norms(model), lr=0.1)
    assert optimizer_names(optimizer, model) == ["1.weight", "1.bias", "0.weight", "0.bias"]
    foreign = torch.optim.SGD([torch.zeros(1), *model.parameters()], lr=0.1)
    assert optimizer_names(foreign, model)[:2] == ["0", "0.weight"]
