"""The words that the sample stories draw from: names, animals, toys, places and days."""

# fmt: off
BOYS = [
    "Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Tim", "Finn", "Noah", "Adam", "Owen", "Luke", "Eli",
    "Dan", "Oscar", "Henry", "Peter", "Toby", "Ravi", "Omar", "Kenji", "Mateo", "Hugo", "Theo", "Ethan",
    "Joe", "Milo", "Paul",
]

GIRLS = [
    "Lily", "Mia", "Anna", "Sue", "Emma", "Zoe", "Ella", "Lucy", "Rosie", "Amy", "Nora", "Ruby", "Maya",
    "Sara", "Kate", "Ivy", "Jane", "Molly", "Clara", "Nina", "Lena", "Priya", "Aisha", "Mei", "Hana",
    "Sofia", "Julia", "Beth",
]

# An animal in a story is a he or a she with a name, and lives in a place that suits it.
HE_ANIMALS = [
    "Pip", "Bobo", "Nibble", "Fuzzy", "Biscuit", "Rusty", "Bramble", "Button", "Benny", "Dusty",
    "Pepper", "Bruno", "Chip", "Tuck", "Buddy", "Scout",
]

SHE_ANIMALS = [
    "Coco", "Dot", "Honey", "Clover", "Hazel", "Poppy", "Mimi", "Waffle", "Tilly", "Momo", "Bella",
    "Ginger", "Willow", "Maple", "Pebble", "Dolly",
]
# fmt: on

ANIMAL_HOMES = {
    "rabbit": "in a warm burrow under the hill",
    "fox": "in a den by the old wall",
    "bear": "in a cave near the river",
    "mouse": "in a tiny hole under an oak tree",
    "squirrel": "in a nest high in an oak tree",
    "hedgehog": "in a pile of leaves by the hedge",
    "badger": "in a deep den in the woods",
    "mole": "in a tunnel under the field",
    "otter": "in a snug home by the stream",
    "raccoon": "in a hollow tree in the woods",
    "hamster": "in a soft nest in the barn",
    "beaver": "in a house of sticks on the pond",
}

# Each toy, and what a child does with it.
TOYS = {
    "ball": "roll it across the floor",
    "teddy bear": "hug it at night",
    "truck": "fill it with sand",
    "doll": "brush its hair",
    "toy boat": "sail it in the bath",
    "drum": "play loud songs on it",
    "toy train": "pull it from room to room",
    "toy robot": "make it walk",
    "wagon": "pull it up and down the path",
    "toy plane": "zoom it through the air",
    "yo-yo": "make it go up and down",
    "toy horse": "make it gallop",
}

COLORS = ("red", "blue", "green", "yellow", "orange", "purple")

TRAITS = ("little", "young", "kind", "gentle", "quiet", "clever", "happy", "curious", "friendly", "cheerful")

CHILD_HOMES = (
    "in a small house near the park",
    "in a white house on a hill",
    "in a town by the sea",
    "in a house with a green door",
    "in a tall building in the city",
    "in a village by a river",
    "on a farm with a big red barn",
)

DAYS = (
    "One day",
    "One sunny day",
    "One warm morning",
    "One bright morning",
    "One fine afternoon",
    "One Saturday",
    "Early one morning",
    "After lunch one day",
)
