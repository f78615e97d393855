"""The words that generated catalogues are made of: twelve lines of goods in WebShop's categories.

What makes goals decidable is checked by tests: within a line no attribute, and within an option no
value, is close enough to another for WebShop's judge (a token set ratio above 85, or the same
colour name) to take one for the other, and no attribute stands in another's text.
"""

from dataclasses import dataclass

COLORS = ("black", "white", "blue", "green", "red", "pink", "purple", "yellow")
SIZES = ("small", "medium", "large", "petite", "tall")


@dataclass(frozen=True)
class ProductLine:
    """Goods that share a shelf. `kinds` are singular nouns; `attributes` are adjectives.

    `options` maps an option's name to the values that products draw theirs from; an empty one makes
    products without options. `prices` are the lowest and the highest in dollars.
    """

    category: str
    path: str  # product_category without its last node
    kinds: tuple[str, ...]
    styles: tuple[str, ...]
    purposes: tuple[str, ...]
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    prices: tuple[int, int]


LINES = (
    ProductLine(
        category="beauty",
        path="Beauty & Personal Care › Hair Care",
        kinds=("shampoo", "hair mask", "conditioner", "hair serum"),
        styles=("argan", "coconut", "keratin", "rosemary", "honey"),
        purposes=("curly hair", "daily washing", "weekend care", "fine hair"),
        attributes=(
            "sulfate free",
            "long lasting",
            "deeply moisturizing",
            "volumizing",
            "color safe",
            "dermatologist tested",
            "anti frizz",
        ),
        options={
            "scent": ("lavender", "citrus", "vanilla", "jasmine", "unscented"),
            "size": ("sample", "travel", "standard", "family", "salon"),
        },
        prices=(8, 45),
    ),
    ProductLine(
        category="beauty",
        path="Beauty & Personal Care › Makeup",
        kinds=("lipstick", "nail polish", "eye shadow", "lip gloss"),
        styles=("velvet", "silk", "mineral", "crystal", "cream"),
        purposes=("evening parties", "office days", "stage shows", "summer trips"),
        attributes=(
            "cruelty free",
            "long lasting",
            "highly pigmented",
            "hypoallergenic",
            "smudge proof",
            "fragrance free",
            "easy to remove",
        ),
        options={"color": ("coral", "plum", "crimson", "rose", "mocha", "nude")},
        prices=(5, 40),
    ),
    ProductLine(
        category="fashion",
        path="Clothing, Shoes & Jewelry › Clothing",
        kinds=("hoodie", "polo shirt", "cardigan", "rain jacket"),
        styles=("cotton", "linen", "knit", "fleece", "denim"),
        purposes=("cool evenings", "office wear", "weekend walks", "spring travel"),
        attributes=(
            "machine washable",
            "slim fit",
            "wrinkle resistant",
            "quick drying",
            "breathable",
            "fade proof",
            "lightweight",
        ),
        options={"color": COLORS, "size": SIZES},
        prices=(15, 80),
    ),
    ProductLine(
        category="fashion",
        path="Clothing, Shoes & Jewelry › Shoes",
        kinds=("running shoe", "hiking boot", "sandal", "loafer"),
        styles=("leather", "suede", "canvas", "mesh", "woven"),
        purposes=("long walks", "rainy days", "city streets", "holiday wear"),
        attributes=(
            "slip resistant",
            "arch supporting",
            "memory foam padded",
            "water repellent",
            "hand stitched",
            "breathable",
            "vegan",
        ),
        options={"color": COLORS, "size": ("six", "seven", "eight", "nine", "eleven")},
        prices=(25, 120),
    ),
    ProductLine(
        category="fashion",
        path="Clothing, Shoes & Jewelry › Accessories",
        kinds=("wallet", "tote bag", "belt", "watch strap"),
        styles=("braided", "nylon", "quilted", "waxed", "leather"),
        purposes=("business trips", "school days", "market visits", "gift giving"),
        attributes=(
            "scratch resistant",
            "handmade",
            "adjustable",
            "theft proof",
            "ultra thin",
            "easy to clean",
            "reversible",
        ),
        options={},
        prices=(12, 70),
    ),
    ProductLine(
        category="garden",
        path="Home & Kitchen › Furniture",
        kinds=("console table", "bookcase", "bar stool", "shoe bench"),
        styles=("oak", "walnut", "bamboo", "rattan", "pine"),
        purposes=("small apartments", "busy hallways", "guest rooms", "home offices"),
        attributes=(
            "easy to assemble",
            "solid wood",
            "space saving",
            "scratch proof",
            "foldable",
            "height adjustable",
            "eco friendly",
        ),
        options={"finish": ("natural", "espresso", "charcoal", "whitewash", "amber")},
        prices=(45, 260),
    ),
    ProductLine(
        category="garden",
        path="Home & Kitchen › Bedding & Textiles",
        kinds=("throw blanket", "pillow cover", "table runner", "window curtain"),
        styles=("linen", "velvet", "striped", "boho", "floral"),
        purposes=("living rooms", "cold nights", "patio corners", "nursery rooms"),
        attributes=(
            "machine washable",
            "double sided",
            "super soft",
            "stain resistant",
            "light blocking",
            "pet friendly",
            "shrink proof",
        ),
        options={"color": COLORS, "size": ("small", "medium", "large", "king", "queen")},
        prices=(10, 75),
    ),
    ProductLine(
        category="garden",
        path="Patio, Lawn & Garden › Outdoor Living",
        kinds=("plant pot", "bird feeder", "path light", "garden hose"),
        styles=("copper", "ceramic", "cedar", "stone", "rustic"),
        purposes=("front porches", "narrow balconies", "vegetable beds", "sunny terraces"),
        attributes=(
            "weather resistant",
            "rust proof",
            "solar powered",
            "easy to install",
            "leak free",
            "uv protected",
            "hand painted",
        ),
        options={},
        prices=(12, 90),
    ),
    ProductLine(
        category="electronics",
        path="Electronics › Audio",
        kinds=("bluetooth speaker", "headset", "soundbar", "clock radio"),
        styles=("compact", "studio", "retro", "aluminum", "slim"),
        purposes=("home cinema", "morning runs", "video calls", "beach days"),
        attributes=(
            "noise cancelling",
            "water resistant",
            "fast charging",
            "hands free",
            "high fidelity",
            "voice controlled",
            "shock absorbing",
        ),
        options={"color": COLORS},
        prices=(20, 180),
    ),
    ProductLine(
        category="electronics",
        path="Electronics › Accessories & Supplies",
        kinds=("charging cable", "phone case", "laptop stand", "usb hub"),
        styles=("magnetic", "braided", "carbon", "clear", "rugged"),
        purposes=("road trips", "crowded desks", "bedside tables", "remote work"),
        attributes=(
            "heavy duty",
            "fast charging",
            "plug and play",
            "non slip",
            "dust proof",
            "easy to carry",
            "heat resistant",
        ),
        options={
            "color": COLORS,
            "style": ("single", "twin", "bundle", "deluxe", "basic"),
        },
        prices=(8, 60),
    ),
    ProductLine(
        category="grocery",
        path="Grocery & Gourmet Food › Snacks",
        kinds=("granola bar", "trail mix", "rice cracker", "fruit chew"),
        styles=("crunchy", "roasted", "baked", "toasted", "mountain"),
        purposes=("school lunches", "movie nights", "long hikes", "coffee breaks"),
        attributes=(
            "gluten free",
            "low sodium",
            "non gmo",
            "high protein",
            "kosher certified",
            "dairy free",
            "individually wrapped",
        ),
        options={
            "flavor": ("maple", "cinnamon", "sea salt", "cherry", "caramel", "peanut"),
            "pack": ("single", "trio", "dozen", "bulk", "sampler"),
        },
        prices=(4, 35),
    ),
    ProductLine(
        category="grocery",
        path="Grocery & Gourmet Food › Beverages",
        kinds=("black tea", "ground coffee", "cocoa mix", "fruit juice"),
        styles=("highland", "harbor", "monastery", "valley", "island"),
        purposes=("slow mornings", "cold winters", "family brunch", "late study"),
        attributes=(
            "sugar free",
            "fair trade",
            "caffeine free",
            "small batch",
            "vitamin enriched",
            "usda organic",
            "shelf stable",
        ),
        options={"flavor": ("hazelnut", "ginger", "mint", "vanilla", "lemon")},
        prices=(5, 40),
    ),
)
