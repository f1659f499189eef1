"""What an option of a method changes, and whether everything in it learns."""

import torch

LABELS = torch.tensor([True, False, True])


def said(method, images, masks):
    """Score, map and loss of a method that is ready to score."""
    model = method.model.eval()
    encoded = model.encode(images)
    with torch.no_grad():
        found = model.score(encoded, model.text)
    return (*found, model.loss(encoded, masks, LABELS, text_of(method)))


def text_of(method):
    """What the prompts say now, with its gradient where they learn."""
    model = method.model
    return model.prompts(method.tower, "phantom") if model.prompts.learns else model.text


def changes(usual, others):
    """Whether anything differs of what two methods say."""
    return any(not torch.equal(one, other) for one, other in zip(usual, others, strict=True))


def unmoved(method, loss):
    """Names of parameters that a step down the gradient leaves as they are."""
    trained = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    before = {name: parameter.clone() for name, parameter in trained.items()}
    optimizer = method.configure_optimizers()
    loss.backward()
    optimizer.step()
    return {name for name, parameter in trained.items() if parameter.equal(before[name])}
