"""Full-video propagation written plainly: arrays, loops over pixels, an exhaustive search and a dense linear solve.

Independent of `wave_ops.propagation`, in double precision, and for images of a few pixels. Sides are powers of 2.
Images are (height, width, 3), flows and positions (height, width, 2), x then y.
"""

from __future__ import annotations

import numpy as np

__all__ = ["exhaustive_search", "patch_errors", "plain_detail", "propagate", "vote"]

WEIGHTS = (1.0, 12.0, 0.5, 0.25, 2.0)  # style, colour, edges, temporal, position
GRADIENT_WEIGHTS = (2.5, 0.5, 0.5)  # L, a, b


def propagate(
    frames: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    to_prev: np.ndarray,
    to_cur: np.ndarray,
    *,
    plain: bool = True,
    switched_in_holes: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return the frames between two edited keyframes, the selection of each, and the part of it that the errors make.

    `to_prev[i]` is defined on the grid of frame i + 1, `to_cur[i]` on the grid of frame i. Candidates are mixed
    plainly, or with the contrast of the selected image and its gradients.
    """
    count = len(frames) - 1
    early = outward(frames[:-1], first, to_prev, to_cur)
    late = outward(frames[::-1][:-1], last, to_cur[::-1], to_prev[::-1])[::-1]
    images, selections, by_errors = [], [], []
    for i in range(1, count):
        (image0, error0), (image1, error1) = early[i - 1], late[i - 1]
        weight = i / count
        by_error = weight * error0 >= (1 - weight) * error1
        chosen = by_error.copy()
        if i > 1:
            back, holes = to_prev[i - 1], occluded(to_prev[i - 1], to_cur[i - 1])
            for y, x in np.ndindex(chosen.shape):
                qy, qx = nearest(y, x, back)
                chosen[y, x] |= selections[-1][qy, qx] and (switched_in_holes or not holes[y, x])
        weights = mix_weights(error0, error1, weight)
        if plain:
            images.append(to_rgb((1 - weights[..., None]) * to_lab(image0) + weights[..., None] * to_lab(image1)))
        else:
            images.append(composite(image0, image1, chosen, weights))
        selections.append(chosen)
        by_errors.append(by_error)
    return images, selections, by_errors


def outward(
    frames: np.ndarray, keyframe: np.ndarray, backs: np.ndarray, onwards: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return image and patch error of frame 1, 2, ... as painted from the edited frame 0."""
    height, width = frames[0].shape[:2]
    positions = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(float)
    image = keyframe.astype(float)
    source = [image, frames[0].astype(float), laplacian(frames[0]), image, ramps(positions)]
    painted = []
    for frame, back, onward in zip(frames[1:], backs, onwards, strict=False):
        holes = occluded(back, onward)
        positions = filled(warped(positions, back), holes)
        temporal = filled(warped(image, back), holes)
        guides = [frame.astype(float), laplacian(frame), temporal, ramps(positions)]
        matches = exhaustive_search(source[1:], guides)
        image, seen = vote(source[0], matches), vote(source[1], matches)
        error = patch_errors(source, [image, *guides], matches)
        image = plain_detail(image, seen, frame.astype(float))
        painted.append((image, error))
    return painted


def laplacian(frame: np.ndarray) -> np.ndarray:
    padded = np.pad(frame.astype(float), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.clip(4 * frame.astype(float) - around, 0, 255)


def ramps(positions: np.ndarray) -> np.ndarray:
    height, width = positions.shape[:2]
    return np.stack(
        (positions[..., 0] * 255 / (width - 1), positions[..., 1] * 255 / (height - 1), np.zeros((height, width))),
        axis=-1,
    )


def sample(values: np.ndarray, y: float, x: float) -> np.ndarray:
    """Return the bilinear value at a place; outside the image that of its border."""
    height, width = values.shape[:2]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
    lower = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def nearest(y: int, x: int, flow: np.ndarray) -> tuple[int, int]:
    height, width = flow.shape[:2]
    return (
        int(np.rint(np.clip(y + flow[y, x, 1], 0, height - 1))),
        int(np.rint(np.clip(x + flow[y, x, 0], 0, width - 1))),
    )


def warped(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    result = np.empty((*flow.shape[:2], values.shape[-1]))
    for y, x in np.ndindex(flow.shape[:2]):
        result[y, x] = sample(values, y + flow[y, x, 1], x + flow[y, x, 0])
    return result


def occluded(flow: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """Return True where the flow leaves the image, or the opposite flow does not lead back."""
    height, width = flow.shape[:2]
    mask = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        there = y + flow[y, x, 1], x + flow[y, x, 0]
        back = sample(opposite, *there)
        inside = -0.5 <= there[0] <= height - 0.5 and -0.5 <= there[1] <= width - 0.5
        lengths = np.hypot(*flow[y, x]) + np.hypot(*back)
        mask[y, x] = not inside or np.hypot(*(flow[y, x] + back)) > 0.01 * lengths + 0.5
    return mask


def filled(values: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill holes bilinearly from the finest coarser grid with known values, the means of those below."""
    return np.where(holes[..., None], pull_push(values, ~holes), values)


def pull_push(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    height, width = known.shape
    if known.all() or height == 1:
        return values
    coarse, some = np.zeros((height // 2, width // 2, values.shape[-1])), np.zeros((height // 2, width // 2), bool)
    for y, x in np.ndindex(some.shape):
        block = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        some[y, x] = known[block].any()
        if some[y, x]:
            coarse[y, x] = values[block][known[block]].mean(axis=0)
    coarse = pull_push(coarse, some)
    result = values.copy()
    for y, x in np.argwhere(~known):
        result[y, x] = sample(coarse, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
    return result


def patches(image: np.ndarray) -> np.ndarray:
    """Return the 5 x 5 patch around each pixel, the border repeated: (height, width, 75)."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return np.stack([[padded[y : y + 5, x : x + 5].ravel() for x in range(width)] for y in range(height)])


def exhaustive_search(source: list[np.ndarray], target: list[np.ndarray]) -> np.ndarray:
    """Return for each target pixel the row and column of the source patch with the nearest guides."""
    height, width = target[0].shape[:2]
    distance = np.zeros((height * width, height * width))
    for weight, one, other in zip(WEIGHTS[1:], source, target, strict=True):
        a, b = patches(other).reshape(height * width, -1), patches(one).reshape(height * width, -1)
        distance += weight * ((a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1))
    return np.stack(np.divmod(distance.argmin(axis=1), width), axis=-1).reshape(height, width, 2)


def patch_errors(source: list[np.ndarray], target: list[np.ndarray], matches: np.ndarray) -> np.ndarray:
    error = np.zeros(matches.shape[:2])
    for weight, one, other in zip(WEIGHTS, source, target, strict=True):
        matched = patches(one)[matches[..., 0], matches[..., 1]]
        error += weight / 3 * ((matched - patches(other)) ** 2).sum(axis=-1)
    return error


def vote(image: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Return the mean of the matches of all patches over each pixel."""
    height, width = matches.shape[:2]
    result = np.zeros((height, width, 3))
    for y, x in np.ndindex(height, width):
        votes = []
        for qy in range(max(y - 2, 0), min(y + 3, height)):
            for qx in range(max(x - 2, 0), min(x + 3, width)):
                sy, sx = matches[qy, qx] + (y - qy, x - qx)
                votes.append(image[np.clip(sy, 0, height - 1), np.clip(sx, 0, width - 1)])
        result[y, x] = np.mean(votes, axis=0)
    return result


def plain_detail(image: np.ndarray, seen: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Add `frame` - `seen`, mapped by the affine function of colour from `seen` to `image` around each pixel."""
    height, width = image.shape[:2]
    mirrored = [np.pad(values.astype(float), ((5, 5), (5, 5), (0, 0)), mode="reflect") for values in (seen, image)]
    padded_shape = height + 4, width + 4
    gains, explained, residual = np.zeros((*padded_shape, 3, 3)), np.zeros(padded_shape), np.zeros(padded_shape)
    for y, x in np.ndindex(padded_shape):
        source, edited = (values[y : y + 7, x : x + 7].reshape(-1, 3) for values in mirrored)
        spread = np.cov(source.T, bias=True)
        joint = (edited - edited.mean(0)).T @ (source - source.mean(0)) / 49
        flatter = min((edited.var(0).mean() + 0.25) / (source.var(0).mean() + 0.25), 1)
        likeness = np.exp(-((edited - source) ** 2).mean() / 25) * flatter
        gain = (joint + likeness * 0.25 * np.eye(3)) @ np.linalg.inv(spread + 0.25 * np.eye(3))
        gains[y, x] = gain
        explained[y, x] = np.trace(gain @ spread @ gain.T) / 3 + 25
        here, there = mirrored[0][y + 3, x + 3], mirrored[1][y + 3, x + 3]
        residual[y, x] = ((there - edited.mean(0) - gain @ (here - source.mean(0))) ** 2).mean()
    result = np.empty((height, width, 3))
    for y, x in np.ndindex(height, width):
        fraction = explained[y + 2, x + 2] / (explained[y + 2, x + 2] + residual[y : y + 5, x : x + 5].mean())
        t = np.clip((fraction - 0.95) / 0.045, 0, 1)
        missing = gains[y + 2, x + 2] @ (frame[y, x] - seen[y, x])
        result[y, x] = np.clip(image[y, x] + fraction * t * t * (3 - 2 * t) * missing, 0, 255)
    return result


def mix_weights(error0: np.ndarray, error1: np.ndarray, weight: float) -> np.ndarray:
    """Return the weight of the later candidate at each pixel: by time, and by errors averaged over 9 x 9 pixels."""
    padded = [np.pad(error, 4, mode="edge") for error in (error0, error1)]
    result = np.empty(error0.shape)
    for y, x in np.ndindex(result.shape):
        a, b = (error[y : y + 9, x : x + 9].mean() + 100 for error in padded)
        result[y, x] = weight * a / (weight * a + (1 - weight) * b)
    return result


def composite(image0: np.ndarray, image1: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Blend in Lab with the contrast of the selected image, and solve for the image with the selected gradients."""
    lab0, lab1 = to_lab(image0), to_lab(image1)
    selected = np.where(chosen[..., None], lab1, lab0)
    result = np.empty_like(lab0)
    for c, gradient_weight in enumerate(GRADIENT_WEIGHTS):
        one, other = ((lab[..., c] - lab[..., c].mean()) / lab[..., c].std() for lab in (lab0, lab1))
        mix = (1 - weights) * one + weights * other
        mix = (mix - mix.mean()) / mix.std() * selected[..., c].std() + selected[..., c].mean()
        result[..., c] = fuse(mix, lab0[..., c], lab1[..., c], chosen, gradient_weight)
    return to_rgb(result)


def fuse(mix: np.ndarray, image0: np.ndarray, image1: np.ndarray, chosen: np.ndarray, weight: float) -> np.ndarray:
    height, width = mix.shape
    rows, right = [], []
    for y, x in np.ndindex(height, width):
        source = image1 if chosen[y, x] else image0
        for ny, nx in ((y, x + 1), (y + 1, x)):
            if ny < height and nx < width:
                row = np.zeros((height, width))
                row[ny, nx], row[y, x] = weight, -weight
                rows.append(row.ravel())
                right.append(weight * (source[ny, nx] - source[y, x]))
    system, values = np.array(rows), np.array(right)
    normal = np.eye(height * width) + system.T @ system
    return np.linalg.solve(normal, mix.ravel() + system.T @ values).reshape(height, width)


PRIMARIES = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
TO_XYZ = PRIMARIES / PRIMARIES.sum(axis=1, keepdims=True)  # white is (1, 1, 1)


def to_lab(image: np.ndarray) -> np.ndarray:
    """Return CIE Lab with L scaled to 0..255, and a and b shifted by 128."""
    encoded = np.clip(image, 0, 255) / 255
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = linear @ TO_XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29), -1, 0)
    return np.stack((2.55 * (116 * y - 16), 500 * (x - y) + 128, 200 * (y - z) + 128), axis=-1)


def to_rgb(lab: np.ndarray) -> np.ndarray:
    y = (lab[..., 0] / 2.55 + 16) / 116
    root = np.stack((y + (lab[..., 1] - 128) / 500, y, y - (lab[..., 2] - 128) / 200), axis=-1)
    xyz = np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29))
    linear = np.clip(np.linalg.solve(TO_XYZ, xyz[..., None])[..., 0], 0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
