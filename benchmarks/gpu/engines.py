def measurements(sizes, folder):
    return iter(())
