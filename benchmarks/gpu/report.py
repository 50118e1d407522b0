def lines(cells):
    for name, v in cells.items(): yield f"{name}: {v}"
def verdicts(d): return []
def write(d,f): return []
