"""The built-in sample: small pictures drawn in code, for machines that cannot have CIFAR-10 yet.

Ten classes named as in CIFAR-10. Shapes, colours, positions, sizes, backgrounds and noise vary, and some classes look
alike on purpose (automobile and truck, cat and dog, deer and horse), so that a network has mistakes to make.
"""

import torch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Each class is a list of parts: kind, centre x, centre y, half width, half height, colour. x and y run from -1 to 1,
# y downwards. Colours: "body" is drawn at random for each picture, "dark" and "light" are fixed.
_LEGS = "; ".join(f"box {x} .5 .06 .3 body" for x in (-0.4, -0.25, 0.2, 0.35))
_WHEELS = "disc -.5 .45 .2 .2 dark; disc .5 .45 .2 .2 dark"
_EYES = "disc -.2 0 .09 .09 dark; disc .2 0 .09 .09 dark"
PARTS = {
    "airplane": "disc 0 0 .9 .16 body; disc .05 0 .18 .75 body; disc -.75 0 .1 .35 body",
    "automobile": f"box 0 .2 .85 .24 body; disc -.05 -.05 .5 .35 body; box -.05 -.08 .3 .13 light; {_WHEELS}",
    "bird": "disc -.05 .1 .5 .28 body; disc .45 -.22 .2 .2 body; disc .7 -.18 .14 .06 dark; "
    "box -.6 0 .25 .08 body; box 0 .5 .04 .2 dark",
    "cat": f"disc 0 .1 .55 .5 body; tip -.36 -.45 .2 .3 body; tip .36 -.45 .2 .3 body; {_EYES}",
    "deer": f"disc -.05 .1 .5 .22 body; {_LEGS}; disc .5 -.25 .14 .3 body; "
    "box .4 -.7 .03 .25 dark; box .62 -.7 .03 .25 dark",
    "dog": f"disc 0 .05 .5 .52 body; disc -.5 .05 .15 .4 body; disc .5 .05 .15 .4 body; {_EYES}; disc 0 .3 .14 .1 dark",
    "frog": "disc 0 .25 .7 .38 body; disc -.32 -.15 .2 .2 body; disc .32 -.15 .2 .2 body; "
    "disc -.32 -.18 .08 .08 dark; disc .32 -.18 .08 .08 dark",
    "horse": f"disc -.05 .1 .5 .22 body; {_LEGS}; disc .48 -.25 .14 .38 body; box -.6 .25 .06 .25 dark",
    "ship": "box 0 .4 .85 .2 body; box -.1 .08 .4 .15 light; box .1 -.3 .1 .25 dark",
    "truck": f"box -.25 -.1 .6 .42 body; box .58 .12 .26 .26 body; box .65 .02 .12 .1 light; {_WHEELS}",
}
_DARK, _LIGHT = 0.1, 0.9
_NOISE = 0.1  # standard deviation, in units of the full brightness range
_FLOAT = {"dtype": torch.float32, "device": "cpu"}  # whatever the caller has made PyTorch's defaults


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` pictures, as many of each class as possible, in random order.

    Returns:
        x: uint8 (count, 3, 32, 32); y: int64 (count,). The same seed gives the same pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count, device="cpu") % len(CLASSES)
    y = y[torch.randperm(count, generator=generator, device="cpu")]
    x = torch.empty(count, 3, 32, 32, **_FLOAT)
    for label, name in enumerate(CLASSES):
        mine = y == label
        x[mine] = _draw_class(PARTS[name], int(mine.sum()), generator)
    x += _NOISE * torch.randn(x.shape, generator=generator, **_FLOAT)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8), y


def _draw_class(parts: str, count: int, generator: torch.Generator) -> torch.Tensor:
    def between(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=generator, **_FLOAT)

    # Background: a random colour at the top that runs into another at the bottom.
    down = torch.linspace(0, 1, 32, **_FLOAT).view(1, 1, 32, 1)
    x = (between(0.1, 0.9, 3) * (1 - down) + between(0.1, 0.9, 3) * down).expand(-1, -1, -1, 32).clone()

    # Coordinates of each pixel as the drawn thing sees them: moved, turned, scaled, mirrored for half of the pictures.
    axis = torch.linspace(-1, 1, 32, **_FLOAT)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    u, v = u - between(-0.25, 0.25), v - between(-0.25, 0.25)  # (count, 32, 32)
    angle, size = between(-0.45, 0.45), between(0.5, 1.0)
    mirror = 1.0 - 2.0 * (between(0, 1) < 0.5).float()
    u, v = mirror * (u * angle.cos() + v * angle.sin()) / size, (v * angle.cos() - u * angle.sin()) / size

    body = between(0.05, 0.95, 3)
    for part in parts.split("; "):
        kind, *numbers, colour = part.split()
        cx, cy, half_width, half_height = map(float, numbers)
        dx, dy = (u - cx) / half_width, (v - cy) / half_height
        if kind == "disc":
            distance = (dx.square() + dy.square()).sqrt()
        elif kind == "box":
            distance = torch.maximum(dx.abs(), dy.abs())
        else:  # "tip": a triangle that points upwards
            distance = torch.maximum(2 * dx.abs() - dy, dy.abs())
        inside = (6 * (1 - distance) + 0.5).clamp(0, 1).unsqueeze(1)  # (count, 1, 32, 32), soft at the edge
        ink = body if colour == "body" else _DARK if colour == "dark" else _LIGHT
        x = x * (1 - inside) + inside * ink
    return x
