"""The words of the little language; the tables are chosen so that no question has two answers."""

NAMES = tuple(
    "Ada Ben Cora Dan Elsa Finn Gina Hugo Iris Jack Kate Leo Mira Nils Olga Paul "  # noqa: SIM905
    "Rosa Sam Tara Ugo Vera Will Yara Zeno".split()
)
NOUNS = tuple(
    "apple basket candle desk engine feather garden hammer island jacket kettle ladder "  # noqa: SIM905
    "mirror needle orange pencil river saddle table umbrella violin window bottle camera "
    "door egg flower glove house ink key lamp map nest oven paper ring stone tree wagon".split()
)
THINGS = tuple(
    "apples books coins eggs nuts stamps shells cards balls cups plums pens".split()  # noqa: SIM905
)
OPPOSITES = (
    ("hot", "cold"), ("up", "down"), ("big", "small"), ("fast", "slow"), ("old", "new"),
    ("wet", "dry"), ("hard", "soft"), ("full", "empty"), ("open", "closed"), ("light", "dark"),
    ("rich", "poor"), ("loud", "quiet"), ("early", "late"), ("strong", "weak"), ("near", "far"),
    ("happy", "sad"), ("high", "low"), ("thick", "thin"), ("wide", "narrow"), ("clean", "dirty"),
    ("sweet", "sour"), ("first", "last"), ("inside", "outside"), ("before", "after"),
    ("true", "false"), ("win", "lose"), ("buy", "sell"), ("push", "pull"), ("come", "go"),
    ("laugh", "cry"), ("love", "hate"), ("day", "night"), ("north", "south"), ("east", "west"),
    ("left", "right"), ("begin", "end"), ("remember", "forget"), ("above", "below"),
    ("smooth", "rough"), ("deep", "shallow"), ("cheap", "expensive"), ("always", "never"),
)  # fmt: skip
PLURALS = (
    ("cat", "cats"), ("box", "boxes"), ("child", "children"), ("mouse", "mice"),
    ("foot", "feet"), ("tooth", "teeth"), ("goose", "geese"), ("city", "cities"),
    ("baby", "babies"), ("leaf", "leaves"), ("knife", "knives"), ("wolf", "wolves"),
    ("man", "men"), ("woman", "women"), ("dish", "dishes"), ("bus", "buses"),
    ("glass", "glasses"), ("church", "churches"), ("fox", "foxes"), ("story", "stories"),
    ("party", "parties"), ("wife", "wives"), ("life", "lives"), ("shelf", "shelves"),
    ("tomato", "tomatoes"), ("potato", "potatoes"), ("hero", "heroes"), ("key", "keys"),
    ("toy", "toys"), ("boy", "boys"), ("dog", "dogs"), ("tree", "trees"), ("horse", "horses"),
    ("bench", "benches"), ("brush", "brushes"), ("fly", "flies"), ("lady", "ladies"),
    ("ox", "oxen"), ("thief", "thieves"), ("loaf", "loaves"), ("half", "halves"),
    ("watch", "watches"), ("berry", "berries"), ("penny", "pennies"), ("class", "classes"),
)  # fmt: skip
PAST = (
    ("go", "went"), ("see", "saw"), ("take", "took"), ("give", "gave"), ("eat", "ate"),
    ("run", "ran"), ("write", "wrote"), ("speak", "spoke"), ("break", "broke"), ("drive", "drove"),
    ("sing", "sang"), ("swim", "swam"), ("drink", "drank"), ("begin", "began"), ("know", "knew"),
    ("grow", "grew"), ("throw", "threw"), ("fly", "flew"), ("draw", "drew"), ("buy", "bought"),
    ("bring", "brought"), ("think", "thought"), ("catch", "caught"), ("teach", "taught"),
    ("sleep", "slept"), ("keep", "kept"), ("feel", "felt"), ("leave", "left"), ("find", "found"),
    ("tell", "told"), ("sell", "sold"), ("stand", "stood"), ("make", "made"), ("walk", "walked"),
    ("jump", "jumped"), ("try", "tried"), ("carry", "carried"), ("stop", "stopped"),
    ("plan", "planned"), ("ride", "rode"), ("choose", "chose"), ("freeze", "froze"),
)  # fmt: skip
CATEGORIES = {
    "animal": ("horse", "wolf", "rabbit", "goat", "tiger", "bear", "sheep", "monkey", "camel"),
    "bird": ("robin", "eagle", "sparrow", "owl", "swan", "crow", "parrot", "stork", "falcon"),
    "fruit": ("banana", "pear", "plum", "cherry", "grape", "peach", "lemon", "mango", "fig"),
    "vegetable": ("carrot", "onion", "cabbage", "leek", "turnip", "spinach", "radish", "celery"),
    "tool": ("hammer", "saw", "wrench", "drill", "chisel", "shovel", "rake", "pliers", "axe"),
    "instrument": ("piano", "violin", "flute", "drum", "trumpet", "harp", "cello", "guitar"),
    "vehicle": ("car", "train", "truck", "tram", "ferry", "bicycle", "rocket", "wagon"),
    "garment": ("shirt", "coat", "sock", "scarf", "hat", "glove", "skirt", "jacket"),
    "metal": ("iron", "copper", "gold", "silver", "tin", "zinc", "lead", "nickel"),
    "fish": ("salmon", "trout", "carp", "tuna", "herring", "pike", "cod", "perch"),
}
COLOUR_OF = {
    "snow": "white", "milk": "white", "salt": "white", "a swan": "white", "chalk": "white",
    "grass": "green", "a leaf in summer": "green", "a frog": "green", "spinach": "green",
    "a cucumber": "green", "blood": "red", "a ripe tomato": "red", "a fire engine": "red",
    "a ripe cherry": "red", "a strawberry": "red", "the clear sky": "blue",
    "a sapphire": "blue", "the deep sea": "blue", "a blueberry": "blue", "a lemon": "yellow",
    "a ripe banana": "yellow", "the yolk of an egg": "yellow", "a canary": "yellow",
    "coal": "black", "a raven": "black", "tar": "black", "soot": "black",
    "the night sky": "black", "chocolate": "brown", "coffee": "brown", "a bear": "brown",
    "tree bark": "brown", "a carrot": "orange", "a pumpkin": "orange", "an elephant": "grey",
    "ash": "grey", "lead": "grey", "a flamingo": "pink", "a piglet": "pink",
    "an aubergine": "purple", "lavender": "purple",
}  # fmt: skip
COLOURS = ("white", "green", "red", "blue", "yellow", "black", "brown", "orange", "grey", "pink",
           "purple")  # fmt: skip
MIXTURES = {
    ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple",
    ("black", "white"): "grey", ("red", "white"): "pink", ("red", "green"): "brown",
}  # fmt: skip
RHYMES = (
    ("cat", "hat", "bat", "mat", "rat"), ("dog", "fog", "log", "frog", "hog"),
    ("sun", "run", "fun", "bun", "gun"), ("tree", "bee", "knee", "sea", "key"),
    ("house", "mouse", "blouse", "grouse"), ("cake", "lake", "snake", "rake", "bake"),
    ("ring", "king", "wing", "sing"), ("boat", "coat", "goat", "note", "vote"),
    ("moon", "spoon", "tune", "soon", "noon"), ("night", "kite", "light", "white", "bite"),
    ("bell", "well", "shell", "smell", "tell"), ("car", "star", "jar", "bar", "far"),
    ("rain", "train", "plane", "chain", "brain"), ("book", "hook", "cook", "look", "brook"),
    ("ball", "wall", "tall", "hall", "fall"), ("bed", "red", "head", "bread", "sled"),
    ("nose", "rose", "toes", "hose", "snows"), ("duck", "truck", "luck", "buck", "stuck"),
)  # fmt: skip
YOUNG = (
    ("dog", "puppy"), ("cat", "kitten"), ("cow", "calf"), ("sheep", "lamb"), ("horse", "foal"),
    ("hen", "chick"), ("duck", "duckling"), ("goose", "gosling"), ("lion", "cub"),
    ("goat", "kid"), ("pig", "piglet"), ("frog", "tadpole"), ("swan", "cygnet"),
    ("deer", "fawn"), ("kangaroo", "joey"), ("owl", "owlet"), ("eagle", "eaglet"),
)  # fmt: skip
SOUNDS = (
    ("dog", "barks"), ("cat", "meows"), ("cow", "moos"), ("sheep", "bleats"), ("horse", "neighs"),
    ("duck", "quacks"), ("pig", "grunts"), ("lion", "roars"), ("wolf", "howls"),
    ("frog", "croaks"), ("bee", "buzzes"), ("owl", "hoots"), ("snake", "hisses"),
    ("mouse", "squeaks"), ("rooster", "crows"), ("donkey", "brays"),
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "  # noqa: SIM905
    "fifteen sixteen seventeen eighteen nineteen".split()
)
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
ORDINALS = ("first", "second", "third", "fourth", "fifth")
