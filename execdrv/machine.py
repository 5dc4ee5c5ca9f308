"""stub"""
def detect_facts(names):
    return {n: True for n in names}
