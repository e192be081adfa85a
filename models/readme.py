def text(folder, names):
    return ""
