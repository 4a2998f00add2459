"""The built-in sample: small pictures drawn in code, for machines that cannot have CIFAR-10 yet.

Ten classes named as in CIFAR-10. Shapes, colours, positions, sizes, backgrounds and noise vary, and some classes look
alike on purpose (automobile and truck, cat and dog, deer and horse), so that a network has mistakes to make.
"""

import torch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Each class is a list of parts: (kind, centre x, centre y, half width, half height, colour). x and y run from -1 to 1,
# y downwards. Colours: "body" is drawn at random for each picture, "dark" and "light" are fixed.
_LEGS = [("box", x, 0.5, 0.06, 0.3, "body") for x in (-0.4, -0.25, 0.2, 0.35)]
_WHEELS = [("disc", -0.5, 0.45, 0.2, 0.2, "dark"), ("disc", 0.5, 0.45, 0.2, 0.2, "dark")]
_EYES = [("disc", -0.2, 0.0, 0.09, 0.09, "dark"), ("disc", 0.2, 0.0, 0.09, 0.09, "dark")]
PARTS = {
    "airplane": [
        ("disc", 0, 0, 0.9, 0.16, "body"),
        ("disc", 0.05, 0, 0.18, 0.75, "body"),
        ("disc", -0.75, 0, 0.1, 0.35, "body"),
    ],
    "automobile": [
        ("box", 0, 0.2, 0.85, 0.24, "body"),
        ("disc", -0.05, -0.05, 0.5, 0.35, "body"),
        ("box", -0.05, -0.08, 0.3, 0.13, "light"),
        *_WHEELS,
    ],
    "bird": [
        ("disc", -0.05, 0.1, 0.5, 0.28, "body"),
        ("disc", 0.45, -0.22, 0.2, 0.2, "body"),
        ("disc", 0.7, -0.18, 0.14, 0.06, "dark"),
        ("box", -0.6, 0.0, 0.25, 0.08, "body"),
        ("box", 0.0, 0.5, 0.04, 0.2, "dark"),
    ],
    "cat": [
        ("disc", 0, 0.1, 0.55, 0.5, "body"),
        ("tip", -0.36, -0.45, 0.2, 0.3, "body"),
        ("tip", 0.36, -0.45, 0.2, 0.3, "body"),
        *_EYES,
    ],
    "deer": [
        ("disc", -0.05, 0.1, 0.5, 0.22, "body"),
        *_LEGS,
        ("disc", 0.5, -0.25, 0.14, 0.3, "body"),
        ("box", 0.4, -0.7, 0.03, 0.25, "dark"),
        ("box", 0.62, -0.7, 0.03, 0.25, "dark"),
    ],
    "dog": [
        ("disc", 0, 0.05, 0.5, 0.52, "body"),
        ("disc", -0.5, 0.05, 0.15, 0.4, "body"),
        ("disc", 0.5, 0.05, 0.15, 0.4, "body"),
        *_EYES,
        ("disc", 0, 0.3, 0.14, 0.1, "dark"),
    ],
    "frog": [
        ("disc", 0, 0.25, 0.7, 0.38, "body"),
        ("disc", -0.32, -0.15, 0.2, 0.2, "body"),
        ("disc", 0.32, -0.15, 0.2, 0.2, "body"),
        ("disc", -0.32, -0.18, 0.08, 0.08, "dark"),
        ("disc", 0.32, -0.18, 0.08, 0.08, "dark"),
    ],
    "horse": [
        ("disc", -0.05, 0.1, 0.5, 0.22, "body"),
        *_LEGS,
        ("disc", 0.48, -0.25, 0.14, 0.38, "body"),
        ("box", -0.6, 0.25, 0.06, 0.25, "dark"),
    ],
    "ship": [
        ("box", 0, 0.4, 0.85, 0.2, "body"),
        ("box", -0.1, 0.08, 0.4, 0.15, "light"),
        ("box", 0.1, -0.3, 0.1, 0.25, "dark"),
    ],
    "truck": [
        ("box", -0.25, -0.1, 0.6, 0.42, "body"),
        ("box", 0.58, 0.12, 0.26, 0.26, "body"),
        ("box", 0.65, 0.02, 0.12, 0.1, "light"),
        *_WHEELS,
    ],
}
_DARK, _LIGHT = 0.1, 0.9
_NOISE = 0.1  # standard deviation, in units of the full brightness range


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` pictures, as many of each class as possible, in random order.

    Returns:
        x: uint8 (count, 3, 32, 32); y: int64 (count,). The same seed gives the same pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % len(CLASSES)
    y = y[torch.randperm(count, generator=generator)]
    x = torch.empty(count, 3, 32, 32)
    for label, name in enumerate(CLASSES):
        mine = y == label
        x[mine] = _draw_class(PARTS[name], int(mine.sum()), generator)
    x += _NOISE * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8), y


def _draw_class(parts, count: int, generator) -> torch.Tensor:
    def between(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=generator)

    # Background: a random colour at the top that runs into another at the bottom.
    down = torch.linspace(0, 1, 32).view(1, 1, 32, 1)
    x = (between(0.1, 0.9, 3) * (1 - down) + between(0.1, 0.9, 3) * down).expand(-1, -1, -1, 32).clone()

    # Coordinates of each pixel as the drawn thing sees them: moved, turned, scaled, mirrored for half of the pictures.
    axis = torch.linspace(-1, 1, 32)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    u, v = u - between(-0.25, 0.25), v - between(-0.25, 0.25)  # (count, 32, 32)
    angle, size = between(-0.45, 0.45), between(0.5, 1.0)
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    u, v = mirror * (u * angle.cos() + v * angle.sin()) / size, (v * angle.cos() - u * angle.sin()) / size

    body = between(0.05, 0.95, 3)
    for kind, cx, cy, half_width, half_height, colour in parts:
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
