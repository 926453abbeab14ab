"""Small clouds of known shape, and the files of them."""

import numpy as np


def tilted(height=24, width=32, tilt=(0.2, -0.1), z=1.0):
    """Points of a plane z = z0 + tilt . (x, y) on a grid of 1 mm, in metres."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64) * 1e-3
    depth = z + tilt[0] * columns + tilt[1] * rows
    return np.stack([columns, rows, depth], -1).astype(np.float32)


def box_on_table(height=60, width=80, high=0.01):
    """A box of 20 x 30 mm, 10 mm towards the camera, on a tilted table."""
    points = tilted(height, width)
    inside = np.zeros((height, width), bool)
    inside[20:40, 25:55] = True
    points[inside, 2] -= high
    return points, inside


def ply(points, form="binary_little_endian", more=""):
    """A PLY file of points (N, 3), with a colour each."""
    head = (
        f"ply\nformat {form} 1.0\ncomment made here\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"property uchar red\n{more}end_header\n"
    ).encode()
    if form == "ascii":
        lines = "".join(f"{x!r} {y!r} {z!r} 7\n" for x, y, z in points.astype(float).tolist())
        return head + lines.encode()
    order = "<" if "little" in form else ">"
    rows = np.zeros(len(points), [(n, f"{order}f4") for n in "xyz"] + [("red", "u1")])
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    return head + rows.tobytes()


def pcd(points, how="binary"):
    """A PCD file of a grid (H, W, 3), with an intensity each."""
    height, width = points.shape[:2]
    count = height * width
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity\n"
        f"SIZE 4 4 4 2\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH {width}\nHEIGHT {height}\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {how}\n"
    ).encode()
    flat = points.reshape(-1, 3)
    if how == "ascii":
        lines = "".join(f"{x!r} {y!r} {z!r} 3\n" for x, y, z in flat.astype(float).tolist())
        return head + lines.encode()
    rows = np.zeros(count, [(n, "<f4") for n in "xyz"] + [("i", "<u2")])
    for axis, name in enumerate("xyz"):
        rows[name] = flat[:, axis]
    if how == "binary":
        return head + rows.tobytes()
    plain = b"".join(rows[name].tobytes() for name in rows.dtype.names)
    packed = lzf(plain)
    return head + np.array([len(packed), len(plain)], "<u4").tobytes() + packed


def lzf(plain):
    """LZF with plain runs, and a copy wherever the last byte repeats."""
    packed, at = bytearray(), 0
    while at < len(plain):
        run = 1
        while at and run < 264 and plain[at : at + run] == plain[at - 1 : at] * run:
            run += 1
        run -= 1
        if at and run >= 9:
            packed += bytes([7 << 5, run - 9, 0])
            at += run
        else:
            piece = plain[at : at + 1]
            packed += bytes([0]) + piece
            at += 1
    return bytes(packed)
