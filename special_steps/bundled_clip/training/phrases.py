"""Words for land cover: the phrase corpus the text tower learns from, and the words cells are taught with.

Everything is lower-case, because the tokenizer lower-cases what users type.
"""

from __future__ import annotations

import zlib
from itertools import product
from random import Random

from special_steps.clip.prompts import AERIAL

EXTRA_TEMPLATES = (
    "a photo of {}",
    "a {}",
    "the {}",
    "{} area",
    "an aerial view of {}",
    "remote sensing image of {}",
    "land cover: {}",
    "a hyperspectral image of {}",
    "a picture of {}",
    "some {}",
    "pixels of {}",
    "a bird's eye view of {}",
)

# Land-cover nouns by theme. The themes matter only to readers.
NOUNS: dict[str, str] = {
    "water": "water, river, lake, sea, ocean, pond, stream, creek, canal, reservoir, lagoon, "
    "bay, harbor, harbour, port, marina, pool, swimming pool, wetland, marsh, swamp, bog, "
    "tidal flat, mudflat, estuary, coast, coastline, shore, shoreline, waterway, waterbody, "
    "body of water, open water, shallow water, deep water, turbid water, clear water, ice, snow, "
    "glacier, waterfall, fish pond, aquaculture, salt marsh, salt pan, puddle, fountain, dam, "
    "drainage ditch, mangrove, reef, coral, kelp, algae, flood, floodwater, riverbed, sewage pond",
    "trees": "tree, trees, forest, woodland, woods, coniferous forest, deciduous forest, mixed "
    "forest, evergreen forest, pine, pine forest, oak, oaks, birch, spruce, fir, eucalyptus, palm, "
    "palm trees, tree canopy, canopy, orchard, vineyard, plantation, rainforest, jungle, mangroves, "
    "tree cover, tall vegetation, high vegetation, dead trees, tree crown, hedge, hedgerow, timber, "
    "burned forest, clear cut, fruit trees, olive grove, citrus orchard, poplar, willow, bamboo",
    "grass": "grass, lawn, meadow, pasture, grassland, low vegetation, golf course, park, "
    "healthy grass, stressed grass, synthetic grass, artificial turf, turf, prairie, savanna, "
    "steppe, tundra, weeds, herbaceous vegetation, green space, football field, soccer field, "
    "sports field, playing field, baseball field, cemetery, garden, gardens, dry grass, hay, "
    "rangeland, moss, fern, reed, reeds, heath, moor, vegetation, green vegetation, "
    "sparse vegetation, shrub, shrubs, bush, bushes, shrubland, scrub, scrubland, chaparral",
    "soil": "soil, bare soil, bare ground, ground, dirt, dirt ground, earth, mud, clay, silt, sand, "
    "gravel, pebbles, rock, rocks, stone, stones, boulders, bedrock, cliff, mountain, hill, desert, "
    "dune, sand dune, sandy beach, beach, barren land, bare land, bare earth, wasteland, quarry, "
    "mine, open pit mine, tailings, landfill, lava, ash, limestone, sandstone, granite, basalt, "
    "marble, shale, iron oxide, kaolinite, alunite, hematite, muscovite, gypsum, dry lake bed, "
    "salt flat, scree, ravine, canyon, badlands, excavation, construction site, fallow land, tilled "
    "soil, ploughed field, plowed field, topsoil, red soil, dark soil, bright soil, mixed ground",
    "crops": "crop, crops, cropland, farmland, farm, field, fields, agricultural field, "
    "agriculture, arable land, corn, maize, wheat, barley, oats, rice, rice paddy, paddy field, "
    "soybean, soybeans, cotton, sugarcane, sugar beet, potato, potatoes, tomato, tomatoes, lettuce, "
    "cabbage, broccoli, celery, carrot, onion, alfalfa, clover, rapeseed, canola, sunflower, "
    "sorghum, millet, peanut, tobacco, tea, coffee, grapes, strawberry, watermelon, greenhouse, "
    "plastic greenhouse, plastic mulch, stubble, irrigated field, terraced field, harvested field, "
    "grape vines, vines, hay windrowed, buckwheat, beans, peas, oilseed, orchards, nursery",
    "road": "road, roads, street, highway, freeway, motorway, avenue, path, trail, track, dirt road, "
    "gravel road, paved road, asphalt, asphalt road, tar, tarmac, bitumen, concrete, cement, "
    "pavement, paving, sidewalk, footpath, driveway, parking lot, parking area, car park, runway, "
    "taxiway, airport, airfield, apron, bridge, overpass, viaduct, intersection, crossroads, "
    "roundabout, railway, railroad, rail track, train tracks, railway station, plaza, square, "
    "courtyard, brick pavement, self-blocking bricks, bricks, tiles, cobblestone, yellow curb, curb, "
    "crosswalk, road marking, playground, running track, tennis court, basketball court, "
    "impervious surface, paved surface, lane, alley, tunnel, helipad",
    "buildings": "building, buildings, house, houses, home, roof, roofs, rooftop, building roof, "
    "tile roof, tiled roof, metal roof, red roof, white roof, blue roof, flat roof, shingle roof, "
    "gray roof, sheet metal, painted metal sheets, metal sheets, metal, steel, aluminium, copper, "
    "zinc, glass, solar panel, solar panels, residential area, residential building, commercial "
    "building, commercial area, industrial area, industrial building, factory, warehouse, shed, "
    "hangar, skyscraper, apartment, apartment block, church, school, hospital, stadium, shopping mall, "
    "storage tank, storage tanks, oil tank, silo, power plant, substation, urban area, built-up area, "
    "city, town, village, suburb, downtown, settlement, mobile home, mobile homes, trailer park, "
    "tent, barn, farmhouse, castle, tower, chimney, wall, fence, terrace, balcony, greenhouse roof, "
    "cloth panel, tarp, tarpaulin, wood, wooden deck, plastic, plastic sheet, rubber, brick, rubble, "
    "debris, ruins, bare roof, ceramic tiles, slate, thatch",
    "objects": "car, cars, vehicle, vehicles, truck, trucks, bus, van, train, airplane, airplanes, "
    "aircraft, plane, helicopter, boat, boats, ship, ships, sailboat, yacht, container, containers, "
    "crane, person, people, crowd, animal, cow, cattle, sheep, horse, pole, power line, antenna, dock, "
    "pier, jetty, wharf, buoy, target, panel, calibration panel, trash, garbage, pile, stockpile",
    "other": "shadow, shadows, shade, dark shadow, building shadow, tree shadow, cloud, clouds, "
    "cloud shadow, haze, smoke, fire, burned area, burn scar, background, unclassified, unknown, "
    "other, clutter, noise, no data, border, edge, mixed pixel, light, darkness, sky",
}

ADJECTIVES = (
    "dense sparse green dry wet dark bright red white gray blue brown old new small large flat "
    "steep bare rural urban tropical shallow deep sandy rocky muddy shaded sunlit healthy dead "
    "burned flooded frozen paved artificial natural abandoned industrial residential wild"
)

CONTEXTS = (
    "near water",
    "in the city",
    "in shadow",
    "with trees",
    "with cars",
    "next to a road",
    "on a hill",
    "in a park",
    "along the coast",
    "in the sun",
)


def nouns() -> list[str]:
    """All land-cover nouns, in a fixed order, each once."""
    return list(dict.fromkeys(w.strip() for text in NOUNS.values() for w in text.split(",")))


def held_out(phrase: str) -> bool:
    """True for the 2 % of phrases that never train the text tower (a hash decides, not a draw)."""
    return zlib.crc32(phrase.encode()) % 50 == 0


def corpus(everyday_words: list[str], seed: int = 0) -> list[str]:
    """Phrases to distil: land-cover nouns alone, in templates, with adjectives and in pairs.

    `everyday_words` keep the ranking right for words outside land cover.
    """
    rng = Random(seed)
    base = nouns()
    phrases = [t.format(n) for n in base for t in AERIAL + EXTRA_TEMPLATES]
    qualified = [f"{a} {n}" for a, n in product(ADJECTIVES.split(), base)]
    phrases += rng.sample(qualified, min(12000, len(qualified)))
    phrases += [
        rng.choice(AERIAL[1:] + EXTRA_TEMPLATES).format(q) for q in rng.sample(qualified, 4000)
    ]
    phrases += [f"{rng.choice(base)} {rng.choice(CONTEXTS)}" for _ in range(3000)]
    joints = (" and ", ", ", " or ", "/", " with ")
    phrases += [f"{rng.choice(base)}{rng.choice(joints)}{rng.choice(base)}" for _ in range(6000)]
    phrases += everyday_words
    phrases += [rng.choice(AERIAL[1:]).format(w) for w in everyday_words[:4000]]
    return list(dict.fromkeys(phrases))
