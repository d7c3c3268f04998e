#!/usr/bin/env python3
"""Draw loss curves as SVG: plot.py LOG.tsv... > loss.svg   (lines of step, training loss, held-out loss)"""
import sys

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 320, 56, 36
COLOURS = ("#4a6fa5", "#c0653a")


def main():
    rows = [tuple(map(float, line.split("\t"))) for path in sys.argv[1:] for line in open(path, encoding="utf-8")]
    top_step = max(r[0] for r in rows)
    low, high = (f(v for r in rows for v in r[1:]) for f in (min, max))
    pad = 0.1 * (high - low or 1)
    x = lambda step: LEFT + (WIDTH - LEFT - 16) * step / top_step
    y = lambda loss: 16 + (HEIGHT - BOTTOM - 16) * (high + pad - loss) / (high - low + 2 * pad)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>')
    for i in range(5):
        loss = low + (high - low) * i / 4
        print(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>')
        print(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.2f}</text>')
    for column, (name, colour) in enumerate(zip(("training", "held out"), COLOURS), 1):
        points = " ".join(f"{x(r[0]):.1f},{y(r[column]):.1f}" for r in rows)
        print(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        print(f'<text x="{WIDTH - 20}" y="{16 + 16 * column}" text-anchor="end" fill="{colour}">{name}</text>')
    print(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step (of {top_step:.0f}); nats per token</text></svg>')


if __name__ == "__main__":
    main()
