"""placeholder"""
from execdrv.offers import Offers, enforced
OFFERS=Offers({})
