"""Stories about children."""

from litmoe.stories import vocabulary
from litmoe.stories.teller import Plot, Teller, a, female, male


def lost_toy(t: Teller) -> str:
    hero, elder, toy = t.child(), t.elder(), t.toy()
    first, second = t.two(
        "under the bed",
        "behind the sofa",
        "in the bath",
        "on the stairs",
        "under the table",
        "in the closet",
    )
    return f"""
        {t.meet(hero)}
        [ {hero} had {a(toy.full)} and took it everywhere.
        | {hero.His} best toy was {a(toy.full)}. {hero} liked to {toy.play}.
        | {elder} had given {hero.him} {a(toy.full)}, and {hero} loved to {toy.play}.]
        [ But one morning, the {toy} was gone.
        | One day, {hero} looked in the toy box, and the {toy} was not there.
        | Then one evening, {hero} could not find the {toy}.]

        [ {hero} looked {first}. {hero.He} looked {second}. The {toy} was not there.
        | "Maybe it is {first}," said {hero}. But it was not. It was not {second}, either.
        | {hero} looked {first} and {second}, but {hero.he} did not see it.]
        [{hero} began to cry. | {hero} felt very sad. | {hero} sat down and did not want to play. |]
        [ "Let us think," said {elder}. "Where did you play with it last?"
        | "Do not worry," said {elder}. "We will look for it together."
        | "What is wrong?" asked {elder}. "I lost my {toy}," said {hero}.]

        [ Just then, the dog came in with the {toy} in its mouth.
          "So it was you!" laughed {hero}.
          [The dog wagged its tail. | The dog only wanted to play, too.]
          {hero} took the {toy} and gave the dog a big hug.
        | Then {hero} remembered. {hero.He} had been in the garden the day before!
          {hero} ran outside and looked [under the apple tree|behind the old bench].
          There was the {toy}, a little wet but not broken.
          "I found it!" {hero} shouted.
        | They cleaned the whole room. {elder} lifted [a blanket|a pile of clothes] from the floor.
          Under it was the {toy}! "There you are!" cried {hero}.
          "A tidy room hides nothing," said {elder} with a smile.]
        [ After that, {hero} put the {toy} in the toy box every night.
        | That night, {hero} went to sleep with the {toy} close by.
        | {hero} thanked {elder}, and they played with the {toy} until dinner.
        | From then on, {hero} took good care of {hero.his} {toy}.]
    """


def sharing(t: Teller) -> str:
    hero, toy = t.child(), t.toy()
    friend = t.friend(hero)
    return f"""
        {t.meet(hero)}
        [ {hero} got {a(toy.full)} and was very proud of it.
        | {hero} had a new toy. It was {a(toy.full)}.
        | {t.day()}, {hero} took {hero.his} {toy.full} to the park.]
        [ {hero.His} friend {friend} saw it.
        | {friend}, who lived next door, came to play.
        | Then {hero.his} friend {friend} came by.]
        [ "May I play with it, too?" asked {friend}.
        | "What a nice {toy}!" said {friend}. "May I have a turn?"]

        [ "No! It is mine," said {hero}, and {hero.he} held the {toy} tight.
          {friend} [looked at the ground|was sad and walked away|sat down alone].
          {hero} played alone for a while, but [it was not much fun|soon it was boring].
          [ {hero.He} saw that {friend} was sad, and that made {hero} sad, too.
          | "A toy is more fun with a friend," {hero} thought.]
        | "No!" said {hero}. But {friend} took hold of the {toy}.
          They both pulled. [Crack!|Bump!] They fell down, and the {toy} fell on the ground.
          Luckily, it was not broken. [Both of them felt bad.|They looked at each other.]
          "I am sorry I pulled," said {friend}. "I am sorry, too," said {hero}.
        | {hero} was not sure. "What if you break it?" {hero.he} asked.
          "I will be very careful," said {friend}. "I promise."
          [ {hero} thought about it for a long time.
          | {hero} remembered how {friend} had shared {friend.his} snack.]]

        [ "Let us take turns," said {hero}. "You can go first."
        | {hero} held out the {toy}. "Here, {friend}. You can play with it now," {hero.he} said.
        | "I have an idea," said {hero}. "We can play with it together."]
        [ {friend} smiled from ear to ear.
        | First {friend} had a turn, and then {hero} had a turn.
        | They laughed and played until the sun went down.]
        [ {hero} learned that sharing makes a toy twice as much fun.
        | From that day on, {hero} and {friend} shared all their toys.
        | "It is better with you," said {hero}, and {friend} gave {hero.him} a hug.
        | The next day, {friend} brought {friend.his} own toys, and they shared those, too.]
    """


def dark_bedtime(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    fear, truth = t.row("""
        - Tap, tap, tap! Something was [knocking|tapping] on the window. | It was only a
            branch of the tree, moving in the wind.
        - There was a big black shape [on the chair|by the door]. It looked like a monster! |
            It was only a coat with a hat on top.
        - Something [soft|small] was moving under the bed. Scratch, scratch! | It was only the
            cat, who wanted to sleep in a warm room.
        - There was a long gray shadow on the wall. It had two big ears! | It was only the shadow of a toy
            rabbit on the shelf.
    """)
    return f"""
        {t.meet(hero)}
        [ {hero} was brave in the day, but {hero.he} was afraid of the dark.
        | {hero} did not like to go to bed, because the room was so dark.]
        [ One night, {elder} turned off the light and said good night.
        | One night, {hero} lay in bed and pulled the blanket up to {hero.his} nose.]

        {fear}
        [What could it be? | {hero}'s heart beat fast.]
        [ "{elder}! Help!" cried {hero}. {elder} came at once and turned on the light.
          "Let us look together," said {elder}. They held hands and looked. {truth}
        | {hero} wanted to hide. But then {hero.he} took a deep breath.
          "I will be brave," {hero.he} said. {hero} turned on the lamp and looked. {truth}
        | {hero} ran to {elder}. "Take my [little light|flashlight]," said {elder}. "When you can see a
              thing, it is not scary."
          {hero} went back and shone the light into the room. {truth}]

        [{hero} laughed and laughed. | "How silly!" said {hero}, and {hero.he} smiled. |]
        [ {elder} sang a soft song, and {hero} was not afraid any more.
        | {elder} opened the curtain a little, so the moon could shine in.
        | {elder} read {hero.him} a story about a sleepy bear.
        | {elder} gave {hero.him} a kiss and said, "Good night, my brave {hero.kind}."]
        [ Soon {hero} was fast asleep.
        | {hero} closed {hero.his} eyes and slept until the morning.
        | After that night, the dark did not seem so bad.]
    """


def rainy_day(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    friend = t.friend(hero)
    wish = t.one(
        "ride bikes in the park", "play ball in the yard", "go to the beach", "fly a kite", "climb trees"
    )
    return f"""
        {t.meet(hero)}
        [ One day, {hero} and {hero.his} friend {friend} wanted to {wish}.
        | {friend} came over one Sunday, because they had planned to {wish}.]
        [But it began to rain. | But the sky turned gray, and rain came down. | But it rained and rained.]
        [ "Now we cannot play," said {hero}, and {hero.he} looked out of the window.
        | "I do not like rain," said {friend}. "There is nothing to do."
        | "Rain, rain, go away!" they sang. But the rain did not go away.]

        [ "You can build a fort," said {elder}, and brought [some|three] old blankets.
          {hero} moved the chairs, and {friend} laid the blankets on top.
          [They put soft pillows inside. | They hung a paper flag over the door.]
          [ It was a castle, and the rain was a dragon which could not get in.
          | In the fort, they ate crackers and told funny stories.]
        | {elder} laughed. "Rain is only water! Put on your boots," said {elder}.
          {hero} and {friend} ran outside and jumped into the biggest puddle. Splash!
          [ They made little boats from leaves and let them float down the street.
          | They counted the worms and the snails on the path.
          | {friend} danced, and {hero} caught raindrops on {hero.his} tongue.]
          Then they went in and drank warm milk.
        | "Let us make a show," said {friend}. They found old socks and drew faces on them.
          {hero} had [a king|a lion|a cow], and {friend} had [a queen|a mouse|a witch].
          {elder} sat on the sofa and watched.
          ["More, more!" called {elder} at the end. | {elder} laughed and clapped.]
        | {elder} put paper and [paints|crayons] on the table.
          {hero} made a picture of [a yellow sun|a blue whale|a red house].
          {friend} made [a green frog|a garden of flowers|a boat on the sea].
          Soon there were so many pictures that they covered the whole wall.]

        [ When the rain stopped, they did not even see it.
        | At last the sun came out, and there was a rainbow in the sky.
        | In the evening, the rain stopped, and {friend} had to go home.]
        [ "This was the best rainy day," said {hero}.
        | "That was so much fun!" said {friend}.
        | {hero} hoped that it would rain again soon.
        | {hero} and {friend} learned that any day can be a good day.]
    """


def gift(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    thing, work, trouble, fix = t.row(f"""
        - picture | painted a picture of a garden with a hundred flowers | the cat walked over it with
            [wet|muddy] feet | turned every paw mark into a little brown flower
        - necklace | put shiny beads on a string, one after another | the string broke, and the beads
            rolled all over the floor | picked up every bead and used a stronger string
        - cake | mixed flour, eggs and sugar and made a small cake | it came out of the oven flat on one
            side | covered it with cream and berries until it looked fine
        - card | folded some paper and drew a big heart on it | {hero} spilled juice on one corner | cut
            the paper into the shape of a star, and the wet corner was gone
    """)
    return f"""
        {t.meet(hero)}
        [ It was almost {elder}'s birthday, and {hero} wanted to give {elder.him} something special.
        | {hero} loved {hero.his} {elder.kind} very much and wanted to make {elder.him} happy.
        | {elder} had been sick, so {hero} wanted to make {elder.him} a gift.]
        [ But {hero} had no money.
        | In {hero.his} money box, there was only one small coin.
        | "The best gifts are made by hand," {hero} thought.]

        [ So {hero} {work}.
        | {hero} thought hard. Then {hero.he} {work}.
        | All morning, {hero} was busy. {hero.He} {work}.]
        [But then {trouble}. | {hero} was almost done when {trouble}. | Oh no! Just then, {trouble}.]
        ["Now it is spoiled!" cried {hero}. | {hero} wanted to cry. | {hero} was upset. |]
        [ Still, {hero} did not give up. {hero.He} {fix}.
        | {hero.He} took a deep breath. "I can fix this," {hero.he} said. {hero.He} {fix}.]

        [ {hero} gave the {thing} to {elder} with both hands.
        | The next day, {hero} said, "This {thing} is for you, {elder}. I made it!"
        | When {elder} saw the {thing}, {elder.he} smiled from ear to ear.]
        [ "It is the best {thing} I ever got," said {elder}.
        | "You made this for me?" asked {elder}. "It is wonderful!"
        | {elder} gave {hero} a long, warm hug.]
        [ {hero} was so proud and happy.
        | {hero} knew that a gift from the heart is worth more than gold.
        | And {hero} found out that giving feels even better than getting.]
    """


def broken_thing(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    thing = t.one("vase", "cup", "plate", "jug", "bowl")
    look = t.one("blue", "pretty", "white", "old")
    return f"""
        {t.meet(hero)}
        [ One day, {hero} was [running|throwing a ball|jumping|dancing] in the house.
        | "Please do not run in the house," said {elder}. But {hero} forgot.]
        [ Crash! {elder}'s {look} {thing} fell and broke.
        | {hero} bumped into the table, and {elder}'s {look} {thing} fell to the floor. Crash!]

        [ {hero} was scared. {hero.He} put the pieces in a bag and hid the bag behind the door.
          At dinner, {elder} asked, "Did you see my {thing}?" "No," said {hero} in a very small voice.
          [ But {hero} could not eat. {hero.His} tummy hurt, because it was not true.
          | That night, {hero} could not sleep. The lie felt as heavy as a rock.]
        | "Who did this?" asked {elder}. {hero} looked at {hero.his} shoes.
          "It was the cat," said {hero}. So the cat had to stay outside, and it cried at the door.
          {hero} [felt very bad|was ashamed|felt sorry for the cat].
        | {hero} thought about hiding. {hero.He} thought about running away.
          But {hero.he} knew that [this was not right|hiding would not help|the truth was better].]

        [ {hero} went to {elder}. "I broke your {thing}," {hero.he} said. "I am so sorry."
        | At last, {hero} told the truth. "I did it," {hero.he} said, and {hero.he} began to cry.]
        [ "I am sad about the {thing}," said {elder}, "but I am glad that you told me."
        | {elder} was quiet for a while. Then {elder} said, "Thank you for telling the truth."
        | "That was brave," said {elder}, and gave {hero} a hug.]
        [ Together they glued the pieces. The {thing} had many lines now, but it was whole again.
        | {hero} helped to sweep the floor and saved {hero.his} coins for a new {thing}.
        | {hero} made {elder} a new {thing} from clay, and {elder} liked it very much.]
        [ After that, {hero} always told the truth.
        | {hero} felt light and happy again.
        | And {hero} never [ran|played wild games] in the house again.
        | {hero} learned that the truth makes hard things better.]
    """


def cooking(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    food, steps, end_food = t.row("""
        - bread | mixed the flour and the water and pressed the dough with both hands | slice
        - pancakes | broke the eggs and mixed them with milk and flour | pancake
        - apple pie | peeled the apples and cut them into thin pieces | piece
        - cookies | rolled the dough flat and cut out little stars | cookie
        - muffins | mixed butter, sugar and flour in a big bowl | muffin
    """)
    return f"""
        {t.meet(hero)}
        [{t.day()}, {hero} was hungry. | {t.day()}, {hero} and {hero.his} {elder.kind} were in the kitchen.]
        [ "Can we make {food}?" asked {hero}. "Yes," said {elder}. "But you must help me."
        | "Today we will make {food}," said {elder}. "Hooray!" said {hero}.
        | {hero} wanted to learn how to make {food}.]
        [{hero} put on an apron and washed {hero.his} hands. | {elder} gave {hero} a tall white hat.]

        First, {hero} {steps}.
        [ But {hero} dropped the bag of flour. Puff! There was a white cloud, and everything was white.
          ["You look like a snowman!" laughed {elder}. | Even the dog was white. {hero} laughed.]
          They cleaned the floor and started again.
        | But {hero} was in a hurry. {hero.He} took the salt for the sugar.
          "Ugh!" said {hero}, and {hero.he} made a funny face.
          "Never mind," said {elder}. "Every cook makes mistakes." So they tried again, and this time they
              went slowly.
        | "Is it ready?" asked {hero}. "Not yet," said {elder}. "Good food needs time."
          [So {hero} set the table and picked some flowers.|So they sang three songs and washed the spoons.]
          Slowly, the kitchen filled with a wonderful smell.
        | But there was no [butter|salt] in the house.
          {hero} ran to the neighbor and knocked on the door. The neighbor was happy to help.
          "Come and eat with us," said {hero}, and the neighbor came.]

        [At last, it was time to eat. | In the end, everything turned out just right.]
        [ {hero} had one {end_food}, and then another.
        | "Mmm!" said {hero}. "This is so good!"
        | Everyone sat at the table and ate.]
        [ "You are a good cook," said {elder}, and {hero} smiled.
        | They had made everything together, and that was the best part.
        | {hero} took some to an old man next door, and he was very glad.
        | From then on, {hero} helped in the kitchen every week.]
    """


def mended_toy(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    toy, broke, repair, tool = t.row("""
        - truck | one of its wheels came off | put the wheel back with a new screw | a screwdriver
        - teddy bear | its arm came off | sewed the arm back on with small stitches | a needle and thread
        - kite | it got a big hole | put strong tape over the hole | some tape
        - doll | its dress was torn | sewed a bright patch on the dress | a needle and thread
        - wooden horse | its leg broke | glued the leg and tied a string around it | a bottle of glue
        - music box | it did not play any more | cleaned the dust out of it and turned the little key | a
            soft brush
    """)
    return f"""
        {t.meet(hero)}
        [ {hero} had an old {toy} which {hero.he} loved more than any new toy.
        | {hero.His} favorite thing was an old {toy}.
        | Every day, {hero} played with {hero.his} old {toy}.]
        [But one day, {broke}. | Then, one sad morning, {broke}.]
        [ "My poor {toy}!" cried {hero}.
        | {hero} held the {toy} and cried.
        | "Oh no," said {hero}. "What can I do?"]

        [ {hero.His} [brother|sister|cousin] said, "Throw it away. It is old." But {hero} did not want to.
        | In the store, there were many new toys, but {hero} did not want a new one.
        | {hero} tried to fix it alone, but it was too hard.]
        [So {hero} took the {toy} to {elder}. | {hero} asked {elder}, "Can you help me?"]
        [ "Broken things can be mended," said {elder}, and got {tool}.
        | {elder} looked at it and nodded. "Bring me {tool}," said {elder}.]
        [ {hero} held the {toy} still, and {elder} {repair}.
        | {elder} showed {hero} how. Slowly and carefully, {hero} {repair}.]

        [ The {toy} was as good as new!
        | Now the {toy} was even better than before.
        | It was done! {hero} jumped for joy.]
        [ "Thank you, {elder}!" said {hero}.
        | "We did it together," said {elder}.
        | {hero} gave {elder} a big hug. |]
        [ The {toy} had a little mark now, and {hero} loved it even more.
        | The next week, {hero} helped a friend to fix a broken toy.
        | {hero} learned that you do not have to throw a thing away when it breaks.
        | That night, the {toy} slept next to {hero}'s bed.]
    """


def messy_room(t: Teller) -> str:
    hero, parent, toy = t.child(), t.parent(), t.toy()
    lost = t.one("book", "scarf", "flute", "hat")
    return f"""
        {t.meet(hero)}
        [{hero}'s room was always a mess. | {hero} never liked to clean {hero.his} room.]
        [ There were socks on the lamp and blocks on the bed.
        | There were toys on the floor, and clothes on top of the toys.]
        "Please clean your room," said {parent}. "Later," said {hero}.

        [ One day, {hero} wanted to take {hero.his} {lost} to school, but {hero.he} could not find it.
        | One morning, {hero} needed {hero.his} {lost} and could not find it in the mess.]
        [ Then {hero} stepped on {hero.his} {toy} and fell down. Ouch!
        | {hero.He} looked and looked, and {hero.he} was almost late.]
        [ "Now I see," said {hero}. "I have to clean up."
        | "Will you help me?" asked {hero}. "I will help you start," said {parent}.]
        [ {hero} made it a game. {hero.He} sang a song and put away one thing for every line.
        | First {hero} picked up the clothes. Then {hero.he} put the blocks in a box and the books on the
            shelf.
        | {hero} asked {hero.his} brother to race. Who could fill a box first?]

        [Under the bed|Behind the toy box|Under a pile of shirts] was the {lost}!
        [ {hero} also found [two coins|a lost puzzle piece|a letter from Grandma].
        | And now there was a lot of room to play, too.]
        ["It looks so nice!" said {parent}. | "I am proud of you," said {parent}. |]
        [ After that, {hero} cleaned up every evening, and nothing was lost again.
        | {hero} liked the clean room so much that {hero.he} kept it that way.
        | It had not been so hard after all.]
    """


def new_baby(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    baby = t.friend(hero)
    brother = "brother" if baby.kind == "boy" else "sister"
    old = "brother" if hero.kind == "boy" else "sister"
    return f"""
        {t.meet(hero)}
        One day, there was a new baby in the house. It was a little {brother} named {baby}.
        [ Everybody came to see the baby. Nobody looked at {hero}.
        | {hero} wanted to play with {baby}, but {baby} only slept and cried.
        | "Shh," said {parent} all the time. "The baby is sleeping."]
        [{hero} felt lonely. | {hero} was a little angry. | "They do not love me now," {hero} thought.]

        [ One evening, {baby} cried and cried. Nobody could make {baby.him} stop.
        | Then one day, {baby} began to cry when {parent} was busy in the kitchen.]
        [ {hero} went to the bed and sang a funny song about [a duck|a frog|a pig].
        | {hero} made a silly face and wiggled {hero.his} ears.
        | {hero} held out one finger, and {baby} took it and held on tight.
        | {hero} brought {hero.his} own soft blanket and laid it over {baby}.]
        [ {baby} stopped crying. Then {baby.he} smiled {baby.his} very first smile!
        | {baby} looked up with big eyes. {baby.He} was quiet, and then {baby.he} laughed.]

        [ "You did it!" said {parent}. "You are a wonderful big {old}."
        | "See? {baby} loves you best," said {parent}.
        | {parent} hugged {hero} and said, "Our love did not get smaller. It grew!"]
        [ From then on, {hero} helped with {baby} every day.
        | {hero} was not lonely any more, because now {hero.he} had a little {brother}.
        | {hero} could not wait to show {baby} how to walk and how to play.]
    """


def animal_in_need(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    animal, where, plan, thanks = t.row(f"""
        - kitten | high up in a tree, and it could not get down
            | [ {elder} held a long ladder, and {hero} called softly until the kitten climbed down.
              | They put a dish of milk under the tree, and step by step the kitten came down.]
            | The kitten purred and rubbed its head on {hero}'s leg.
        - bird | on the ground, with a hurt wing
            | [ They put the bird in a box with soft grass and gave it water and seeds every day.
              | {elder} wrapped the wing, and {hero} fed the bird for two weeks.]
            | At last its wing was strong, and the bird flew up and sang a song.
        - puppy | by the road, wet and all alone
            | [ They dried the puppy with a towel and asked at every door until they found its home.
              | {hero} read the name on its collar, and they took the puppy back to its house.]
            | The puppy wagged its tail and licked {hero}'s nose.
        - lamb | stuck in a fence, far from its mother
            | [ {elder} pulled the wire apart, and {hero} gently pushed the lamb out.
              | They talked to the lamb so it would stay calm, and then {elder} lifted it out.]
            | The lamb ran to its mother and jumped for joy.
        - turtle | on its back, with its feet in the air
            | [ {hero} turned it over with both hands and carried it to the pond.
              | They turned it over, gave it a fresh green leaf to eat and took it to the pond.]
            | The turtle looked at {hero} for a long time and then swam away.
        - duckling | in a deep hole by the path, and it was calling for its mother
            | [ {hero} reached down with a net and lifted the duckling out.
              | {elder} put a board into the hole, and the duckling walked up like a king.]
            | Its mother came with all the other ducklings, and they walked off in a line.
    """)
    return f"""
        {t.meet(hero)}
        [ {t.day()}, {hero} went for a walk with {elder}.
        | {t.day()}, {hero} was playing outside while {elder} worked in the garden.]
        [ Suddenly there was a small, sad sound.
        | {hero} heard a tiny cry and stopped.
        | "Listen!" said {hero}. "Something is crying."]
        It was a {animal}. It was {where}.

        [ "Poor little {animal}!" said {hero}. "We must help it."
        | "It is afraid," said {hero}. "What can we do?"]
        [ "We must be very gentle," said {elder}.
        | "Do not move too fast," said {elder}. "It does not know us."
        | "I have an idea," said {elder}.]
        {plan}
        {thanks}

        [ "You have a kind heart," said {elder}.
        | "Goodbye, little {animal}!" called {hero}.
        | {hero} was so happy that {hero.he} danced all the way home.]
        [ That night, {hero} drew a picture of the {animal} and put it over {hero.his} bed.
        | After that, {hero} always looked out for animals who needed help.
        | {hero} learned that even a small person can do a big, good thing.
        | And whenever {hero} saw {a(animal)}, {hero.he} smiled.]
    """


def building(t: Teller) -> str:
    hero = t.child()
    friend = t.friend(hero)
    thing, place, first, fall, better = t.row("""
        - sandcastle | at the beach | piled the sand up high | a wave came and washed it away | farther
            from the water
        - tower | in the living room | put one block on top of another | it shook and fell down | with the
            biggest blocks at the bottom
        - tree house | in the back yard | laid some boards on a branch | the boards slid off | with strong
            ropes and a lot of nails
        - little bridge | at the stream | laid a thin branch over the water | it broke in the middle |
            with three thick logs
        - snowman | in the yard | rolled a ball of snow | the head rolled off | with a bigger ball of snow
            at the bottom
        - raft | at the pond | tied some sticks together | the string came off and the sticks floated away
            | with a long, strong rope
    """)
    day = t.one("One winter day", "After a night of snow") if thing == "snowman" else t.day()
    return f"""
        {t.meet(hero)}
        {day}, {hero} was {place} with {hero.his} friend {friend}.
        [ "Let us build a {thing}!" said {friend}. "The best {thing} in the world!"
        | They wanted to build a {thing}.
        | "I want to build a {thing}," said {hero}. "Me, too!" said {friend}.]

        [They {first}. | They worked hard. They {first}. | First they {first}.]
        [But {fall}. | It looked good, but then {fall}. | Oh no! Before they were done, {fall}.]
        [ "I give up!" said {hero}, and {hero.he} kicked the ground. "It will never work."
        | {friend} almost cried. {hero} did not know what to say.
        | {hero} said it was {friend}'s fault, and {friend} said it was {hero}'s fault.]
        [ Then {hero} took a deep breath. "Let us try again," {hero.he} said.
        | "Wait," said {friend}. "Now we know what went wrong. We can do it better."
        | After a while, they looked at each other and laughed.]
        [So they built it again, {better}. | This time they did it {better}.]

        [ It took a long time, but at last the {thing} was done.
        | And this time, it worked!
        | When it was done, they both stood back and looked. It was perfect.]
        [ They even gave it a name.
        | Everybody who came by stopped to look at the {thing}.
        | "We did it!" they shouted, and they danced around. |]
        [ "I am glad that we did not give up," said {hero}.
        | {hero} and {friend} learned that you may have to try more than once.
        | They went home tired, dirty and very proud.]
    """


def planting_seed(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    plant, tall, use = t.row(f"""
        - sunflower | taller than {hero} | the birds came to eat its seeds
        - tomato plant | as high as the fence | there were red tomatoes for everyone
        - pumpkin | so big that {hero} could sit on it | they made a big pot of soup
        - rose | red and sweet | the bees came to visit it every day
        - bean plant | up to the window | there were beans for dinner
    """)
    return f"""
        {t.meet(hero)}
        [ In spring, {elder} gave {hero} a tiny seed.
        | One spring day, {hero} found a tiny seed in {hero.his} pocket and showed it to {elder}.]
        ["What will it be?" asked {hero}. | "It is so small!" said {hero}. |]
        ["Wait and see," said {elder}. | "If you take care of it, it will be a {plant}," said {elder}.]
        {hero} [made a hole in the soft ground|filled a pot with dark earth] and put the seed in.

        [Every morning, {hero} gave it water. | {hero} gave it water and talked to it every day.]
        [ One day went by, then two, then a week. Nothing happened.
        | But for many days, there was nothing to see.]
        [ "It does not work," said {hero}. "May I dig it up and look?" "No," said {elder}. "It is growing
            where you cannot see it."
        | {hero} was sad and wanted to give up. "Be patient," said {elder}. "Good things take time."
        | {hero} forgot the seed for two days, and the earth was dry. {hero.He} was sorry and ran to get
            water. |]
        [ Then, one morning, there was a little green leaf!
        | Then it rained, and the sun came out. "Look!" shouted {hero}. There was a tiny green leaf.]

        [ It grew and grew. By summer, the {plant} was {tall}.
        | All summer it grew, until the {plant} was {tall}.]
        In the end, {use}.
        [ "You see," said {elder}, "you only had to wait."
        | {hero} saved some seeds for the next spring.
        | {hero} was very proud of {hero.his} {plant}.
        | And {hero} knew that [big|beautiful] things can start very small.]
    """


def learning(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    skill, fail, tip, win, place = t.row(f"""
        - ride a bike | fell on the grass | Look ahead, and not at your feet | rode all the way to the
            corner | on the path
        - swim | went under and got water in {hero.his} nose | Lie on the water as if it were a bed | swam
            across the whole pool | at the pool
        - skate | sat down hard on the ice | Bend your knees and take small steps | went around the whole
            pond | at the frozen pond
        - whistle | heard only air | Make your lips small and round | whistled a whole song | in the
            kitchen
        - tie {hero.his} shoes | made a big, ugly knot | Make two rabbit ears and cross them | tied both
            shoes in a neat bow | by the front door
        - jump rope | stepped on the rope | Listen to the rope and jump when it clicks | jumped twenty
            times without a stop | in the yard
        - draw a horse | drew something that looked like a potato | First draw simple shapes, like circles
            | drew a horse which almost ran off the page | at the table
    """)
    other = t.friend(hero)
    return f"""
        {t.meet(hero)}
        [ {hero} wanted to learn how to {skill}.
        | All of {hero.his} friends could do it, but {hero} could not {skill}.
        | {hero} could not {skill}, but {hero.his} friend {other} could.]
        ["Will you teach me?" {hero} asked {hero.his} {elder.kind}. | "I will show you," said {elder}.]

        [The next morning, they started {place}. | They began {place} the same day.]
        [{hero} tried once and {fail}.|The first time, {hero} {fail}.|{hero} tried, but {hero.he} {fail}.]
        [ {hero.He} tried again, and the same thing happened.
        | The second time was not better.
        | Again and again, it went wrong. |]
        [ "I cannot do it!" cried {hero}. "You cannot do it yet," said {elder}.
        | "It is too hard," said {hero}. "Everything is hard at first," said {elder}.
        | {hero} was angry and wanted to stop. But {elder} only smiled and waited.]
        Then {elder} gave {hero.him} a tip. "{tip}."
        [ {hero} practiced every day, a little at a time.
        | The next day they tried again, and the day after that. |]

        [ And then, all at once, it worked!
        | {hero} took a deep breath and tried one more time. It worked!
        | One day, it was not hard any more.]
        {hero} {win}.
        [ "Look at me! I can do it!" {hero.he} shouted.
        | "Hooray!" shouted {elder}.
        | {elder} clapped and clapped.]
        [ {hero} learned that nobody is good at a thing the first time.
        | The next week, {hero} taught a younger child, and {hero.he} was very patient.
        | {hero} was proud, because {hero.he} had not given up.]
    """


def caterpillar(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    color = t.one("green", "yellow", "fuzzy brown", "striped")
    wings = t.one("orange", "blue", "white", "yellow")
    name = t.one("Wiggle", "Inch", "Fuzz", "Munch")
    return f"""
        {t.meet(hero)}
        {t.day()}, {hero} found a {color} caterpillar on a leaf.
        ["I will call you {name}," said {hero}. | {hero} named it {name}.]
        [ {hero} put it in a big glass jar with fresh leaves and small holes in the lid.
        | {elder} gave {hero} a box, and they filled it with twigs and leaves.]
        {name} ate and ate[|, all day long].

        [ Then, one morning, {name} was gone. There was only a little brown thing on a twig.
        | Then {name} stopped eating and made a hard little house around itself.]
        [ "Is {name} sick?" asked {hero}. "No," said {elder}. "{name} is changing. You must not touch it."
        | "Where did {name} go?" asked {hero}. "{name} is sleeping inside," said {elder}. "Be patient."
        | {hero} was worried. "Just wait," said {elder}. "Soon you will have a surprise."]
        [ It was hard to wait. {hero} looked every morning and every night.
        | {hero} wanted to open it, but {hero.he} did not. {hero.He} waited and counted the days. |]

        [At last, the little house opened. | One sunny day, {hero} shouted, "It is moving!"]
        Out came a butterfly with {wings} wings.
        [ "{name}, you are so beautiful!" said {hero}.
        | It sat on {hero}'s finger and opened its wings to dry. |]
        [ They took it to the garden, and it flew up into the sky. "Goodbye, {name}!" called {hero}.
        | {hero} was a little sad to let it go, but {hero.he} knew that a butterfly needs flowers and sky.]
        [ After that, {a(wings)} butterfly came to {hero}'s window every day.
        | {hero} was glad that {hero.he} had been patient.
        | And when {hero} saw a caterpillar, {hero.he} always thought of {name}. |]
    """


def honest_finder(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    thing, wish = t.row("""
        - wallet | a new bike
        - gold ring | a big ice cream
        - purse | a box of paints
        - silver watch | a pair of skates
    """)
    owner = female("the old woman", "an old woman") if hero.he == "he" else male("the farmer", "a farmer")
    return f"""
        {t.meet(hero)}
        {t.day()}, {hero} went [to the market|for a walk] with {parent}.
        [On the ground, {hero} saw a {thing}.|Something lay [under a bench|in the grass]. It was a {thing}.]
        ["Now I can buy {wish}!" thought {hero}.|{hero} put it in {hero.his} pocket and thought of {wish}.]

        [ But then {hero} thought, "Somebody must be very sad now."
        | Then {hero} remembered how sad {hero.he} had been when {hero.he} lost {hero.his} hat.
        | "It is not yours," said {parent} in a soft voice. "What do you think we should do?"]
        [ So {hero} asked everyone in the street.
        | So {hero} made a sign and put it on a tree.
        | So {hero} went from shop to shop and asked.]
        At last {hero.he} met {owner.kind}, who was looking [everywhere|under every bench|in every corner].
        [ "Did you lose something?" asked {hero}. "Yes, my {thing}," said {owner}.
        | "I have lost my {thing}," said {owner}. "Is this it?" asked {hero}.]

        [{hero} gave it back. | {hero} put the {thing} into {owner.his} hand.]
        [ "Thank you!" said {owner}. "You are an honest {hero.kind}."
        | There were tears of joy in {owner.his} eyes.]
        [ To say thank you, {owner} gave {hero} [a warm bun|a red apple|a shiny coin].
        | Then {owner} told {hero} a story about the {thing}. It had been a gift from {owner.his} mother.
        | From then on, {owner} always waved when {hero} came by. |]
        [ {hero} did not get {wish}, but {hero.he} felt rich and happy.
        | That night, {parent} said, "I am proud of you."
        | {hero} knew that {hero.he} had done the right thing.]
    """


def found_key(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    friend = t.friend(hero)
    metal = t.one("gold", "silver", "brass", "tiny")
    return f"""
        {t.meet(hero)}
        [ {t.day()}, {hero} was digging in the garden with {hero.his} friend {friend}.
        | {t.day()}, {hero} and {hero.his} friend {friend} were playing in the attic.]
        [Something shone. It was a {metal} key! | "Look what I found!" said {hero}. It was a {metal} key.]
        ["What does it open?" asked {friend}. | "There must be a lock for it," said {friend}. |]

        [ They tried the [front door|kitchen door]. The key was too small. They tried the [clock|desk]. The
            key was too big.
        | They tried every door in the house, but the key did not fit.
        | {hero} tried the shed, and {friend} tried the gate. It did not fit.]
        [ {friend} wanted to stop. "One more," said {hero}.
        | "Maybe it opens nothing," said {hero}. But {friend} did not give up.
        | They asked {elder}. {elder} only smiled and said, "Look where it is [dark|quiet]."]
        [Behind the stairs|Under the roof|In the corner of the cellar], they found an old [box|chest|trunk]
            under a [blanket|pile of books].
        [The key went in and turned. Click! | Click! The key fit.]

        [ Inside were [wooden toys|toy soldiers|puppets] from long ago.
          "Those were mine when I was small!" said {elder}. "I thought that they were lost."
          [ The whole afternoon, {elder} played with {hero} and {friend}.
          | {elder} was so happy. And {hero} and {friend} could play with them every day.]
        | Inside were many old letters and a picture of a child.
          "That is me," said {elder}. "I was just as old as you are now."
          {elder} read the letters aloud, and {hero} and {friend} [listened until dark|laughed at the funny
              parts].
          It was better than gold.
        | Inside were [hats with feathers|long silk dresses|red coats and crowns].
          {hero} and {friend} put them on and played king and queen.
          {elder} came in and [bowed low|had to laugh]. "You have found my treasure," said {elder}.
          [ {hero} kept the key on a string, so it would not get lost again.
          | It was the best day of the whole year.]]
    """


def treasure_map(t: Teller) -> str:
    hero, elder = t.child(), t.grandparent()
    friend = t.friend(hero)
    first, second = t.two(
        "the big rock", "the old well", "the red barn", "the wooden bridge", "the tall pine tree"
    )
    steps = t.one("five", "six", "ten", "seven")
    return f"""
        {t.meet(hero)}
        [ {t.day()}, {hero} opened an old book, and a map fell out.
        | {t.day()}, a letter came for {hero}. In it was a map.
        | {t.day()}, {hero} found a map in a bottle by the river.]
        [There was a red cross on it. | It had a dotted line and a big X. |]
        [ "A treasure!" said {hero}, and {hero.he} ran to get {hero.his} friend {friend}.
        | {hero} showed it to {hero.his} friend {friend}. "Let us go!" said {friend}.]

        First they went to {first}. Then they walked {steps} steps to {second}.
        [ But the path was full of mud. {hero} got stuck, and {friend} had to pull {hero.him} out.
        | A dog barked at them. But {friend} talked to it softly, and it let them pass.
        | They held the map upside down and went the wrong way. They laughed and turned it around.
        | The wind took the map and blew it up into a bush. {hero} had to crawl in to get it.]
        [ "Here it is!" said {friend}. "Now we must dig."
        | "The X must be here," said {hero}. They began to dig. |]
        [They dug and dug, until there was a bump. | Soon they hit something hard. |]

        It was a tin box.
        [ In it were [two chocolate bars|a bag of cookies|two candy hearts] and a note. The note said, "Well
            done! Love, {elder}."
        | In it were two [small flashlights|shiny whistles|blue marbles] and a note from {elder}.]
        [{elder} had made the map for them! | Behind a tree, somebody laughed. It was {elder}!]
        [ "The best treasure is a friend to look for it with," said {elder}.
        | They shared the treasure, half for {hero} and half for {friend}.
        | The next day, {hero} and {friend} drew a new map, and this time {elder} had to dig.]
    """


def kite_in_tree(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    friend = t.friend(hero)
    color = t.one(*vocabulary.COLORS)
    return f"""
        {t.meet(hero)}
        [{hero} had {a(color)} kite with a long tail. | {elder} made {hero} {a(color)} kite.]
        [ One windy day, {hero} took it to the hill.
        | One day, the wind was just right, so {hero} ran to the field.]
        [The kite went up and up, as high as the birds. | The kite danced in the sky like a bird. |]

        [ Then a strong wind came and pulled the string.
        | But {hero} looked away for a moment, and the string slipped.]
        [The kite flew into a tall tree and got stuck. | The kite came down in the top of a tree.]
        [ {hero} pulled the string and jumped, but the branch was too high.
        | "My kite!" cried {hero}. The tree was much too tall to climb. |]
        [A {friend.kind} named {friend} came by. | {friend}, who was new in the town, saw it all.]
        ["I can help you," said {friend}. | "Do not cry," said {friend}. "I have an idea." |]
        [ {friend} ran home for a long pole. They pushed, and the kite came loose.
        | {friend} sat on {hero}'s shoulders and poked the kite with a stick. The kite came down.
        | They called {elder}, who came with a ladder and got the kite.
        | "Wait for the wind," said {friend}. They waited. Then the wind turned and blew the kite free.]

        [ "Thank you," said {hero}. "Do you want to fly it with me?"
        | {hero} put the string in {friend}'s hand. "You go first," {hero.he} said.]
        [ They flew the kite until the sun went down, far away from any tree.
        | {friend} had never had a kite before, and {friend.he} laughed out loud. |]
        [ That day, {hero} almost lost a kite, but {hero.he} found a friend.
        | After that, they met on the hill on every windy day.
        | And they were friends from then on.]
    """


def lost_in_market(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    sight = t.one(
        "a man with a singing bird",
        "a table full of toys",
        "a huge pile of oranges",
        "a clown with balloons",
        "a tank of gold fish",
    )
    return f"""
        {t.meet(hero)}
        {t.day()}, {hero} went to the [market|fair] with {parent}.
        [ "Stay close to me," said {parent}. "There are many people."
        | There were so many people, sounds and smells! |]
        [ {hero} saw {sight} and stopped to look.
        | Then {hero} saw {sight}, and {hero.he} let go of {parent}'s hand.]
        [ When {hero.he} turned around, {parent} was gone.
        | A moment later, {hero} could not see {parent} any more.]

        [ {hero} was scared. There were only strangers.
        | {hero} felt very small. {hero.His} eyes filled with tears.]
        [ Then {hero.he} remembered what {parent} always said. "If you get lost, stay where you are."
        | "Stop and think," {hero} thought. "{parent} will look for me here."]
        [ So {hero} stood still by a tall clock and called out, "{parent}! {parent}!"
        | So {hero} stayed there and asked a woman who sold bread for help.
        | So {hero} did not run. {hero.He} told a police officer {hero.his} name.]
        [ "You are a clever {hero.kind}," said a kind voice. "We will wait here together."
        | {hero} waited and sang a little song to be brave.
        | Somebody gave {hero} a cup of water and a chair. |]

        [ Soon {hero} heard a voice. "{hero}! There you are!" It was {parent}!
        | Then {parent} came running through the crowd.]
        [{parent} held {hero} very tight. | {hero} jumped into {parent}'s arms. |]
        [ "I am sorry that I let go," said {hero}. "You did the right thing when you stayed," said {parent}.
        | "I was so worried," said {parent}. "I was, too," said {hero}.]
        [ They walked home hand in hand, and {hero} did not let go again.
        | They bought [a warm pretzel|a bag of cherries|an ice cream] and went home hand in hand.]
    """


def first_day(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    friend = t.friend(hero)
    return f"""
        {t.meet(hero)}
        [ It was {hero}'s first day at a new school.
        | {hero} had moved to a new town and had to go to a new school.]
        [ "I do not want to go," {hero} told {parent}. "I do not know anyone there."
        | {hero} held {parent}'s hand tight and did not want to go in.]
        [ "Every friend was a stranger once," said {parent}.
        | {parent} drew a little heart on {hero}'s hand. "Look at it when you miss me," said {parent}.]

        [The school was big and loud. | All the other children were talking and laughing. |]
        [ {hero} sat in the corner and said nothing.
        | {hero} looked at the floor. {hero.He} felt like a mouse.]
        [ Then {hero} saw {a(friend.kind)} who was sitting alone, too. {friend.His} name was {friend}, and
            {friend.he} was new as well.
        | At lunch, {a(friend.kind)} named {friend} dropped {friend.his} sandwich. It fell in the dirt.
            {hero} gave {friend.him} half of {hero.his} own.
        | {hero} took out a pencil and drew a dragon. "Wow!" said {a(friend.kind)} named {friend}. "Can you
            teach me?"
        | In the yard, a ball rolled to {hero}'s feet. "Kick it back!" called {a(friend.kind)} named
            {friend}. "Do you want to play?"]
        [ {hero} smiled for the first time that day.
        | Soon they were talking about [dogs|trains|the sea|stars] and everything else.
        | "I like you," said {friend}. {hero} was not shy any more.]

        [ When {parent} came, {hero} did not want to go home.
        | After school, {hero} ran to {parent} with a big smile.]
        ["I have a friend!" said {hero}. | "How was it?" asked {parent}. "It was great!" said {hero}.]
        [ The next morning, {hero} was the first one at the door.
        | And the next day, {hero} and {friend} sat side by side.
        | From then on, {hero} liked school very much.]
    """


def on_the_stage(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    friend = t.friend(hero)
    act = t.one("sing a song", "play the flute", "say a poem", "dance alone")
    return f"""
        {t.meet(hero)}
        [ The school was going to have a show, and {hero} was going to {act}.
        | {hero} was picked to {act} at the big show.]
        [ {hero} could do it very well at home, but {hero.he} was shy.
        | At home it was easy. But so many people would look at {hero.him}!]
        ["What if I forget everything?" {hero} asked. | "What if they laugh?" {hero} asked. |]
        [ "Then take a breath and smile," said {elder}.
        | "Look at me," said {elder}. "I will sit in the first row."
        | "Let us practice," said {elder}. So {hero} practiced for {elder}, the cat and all the toys.]

        [The big night came, and the hall was full. | On the night of the show, every chair was taken.]
        [{hero}'s knees shook like jelly. | {hero} stood on the stage and could not move.]
        [ Then {hero} saw {elder}, who waved with both hands.
        | Then {hero.his} friend {friend} whispered, "You can do it!"
        | Then {hero} closed {hero.his} eyes and thought of home.]
        [ {hero} began, very softly. Then {hero.he} got better and better.
        | {hero} made one little mistake, but {hero.he} went on, and nobody minded.
        | {hero} took a breath and began, and all at once the fear was gone.]

        [ At the end, everyone stood up and clapped.
        | It was quiet for a moment. Then everybody clapped and cheered.]
        ["You were wonderful!" said {elder}. | {elder} gave {hero} a bunch of flowers.]
        [ "I was afraid," said {hero}, "but I did it." "That is what brave means," said {elder}.
        | {hero} bowed and could not stop smiling.
        | After that, {hero} helped {friend}, who was shy, too.]
    """


def secret_party(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    friend = t.friend(hero)
    return f"""
        {t.meet(hero)}
        [ One day, {parent} said, "Can you keep a secret? There will be a surprise party for {friend}."
        | {hero.His} best friend was {friend}. Soon it would be {friend}'s birthday, and {hero} planned a
            surprise party.]
        ["I will not tell," said {hero}. | {hero} promised not to say a word.]
        [But it is hard to keep a secret! | But the secret was like a bird that wanted to fly out. |]

        [ The next day, {friend} asked, "Why are you smiling?" {hero} put {hero.his} hand over {hero.his}
            mouth.
        | "Do you want to play on Saturday?" asked {friend}. "I cannot," said {hero}, and {hero.he} ran
            away.
        | {friend} saw that {hero} was hiding some balloons. "Those are for the cat," said {hero}.]
        [ {friend} thought that {hero} did not like {friend.him} any more, and {friend.he} was sad.
        | "You are strange this week," said {friend}. {hero} almost told {friend.him}, but {hero.he} did
            not.]
        [ In secret, {hero} helped to bake a cake and hung up paper stars.
        | In secret, {hero} made a crown of gold paper and a card.
        | Every day after school, {hero} and {parent} blew up balloons.]

        [ On the day of the party, {friend} came to the door. The house was dark.
        | At last the day came. {hero} brought {friend} to the house and opened the door.]
        [Then the light went on. "Surprise!" everyone shouted. | "Surprise!" shouted all the children.]
        [ "For me?" asked {friend}, and {friend.his} eyes were big.
        | {friend} laughed and cried at the same time. |]
        ["So this was your secret!" said {friend}. | "I wanted to tell you so much!" said {hero}. |]
        [ They ate cake and played games until it was dark.
        | {hero} was proud that {hero.he} had kept the secret.
        | "You are the best friend of all," said {friend}.]
    """


def sick_friend(t: Teller) -> str:
    hero, parent = t.child(), t.parent()
    friend = t.friend(hero)
    sick = t.one("a bad cold", "a broken leg", "a high fever", "a very sore throat")
    return f"""
        {t.meet(hero)}
        [{hero} and {friend} played together every day. | {hero.His} best friend was {friend}.]
        [ But one day, {friend} did not come. {friend.He} had {sick}.
        | Then {friend} got {sick} and had to stay in bed.]
        [{hero} missed {friend.him} very much. | "Poor {friend}!" said {hero}. "It must be boring in bed."]

        [ "Let us make some soup for {friend}," said {parent}.
          {hero} washed the carrots and stirred the pot.
          Then they carried the warm pot to {friend}'s house.
          "It smells so good!" said {friend}, and {friend.he} ate it all.
        | {hero} had an idea. {hero.He} made a book of funny pictures, one for every day.
          On the first page was [a cow on a bike|a pig in a dress|a dancing frog].
          When {friend} saw it, {friend.he} laughed for the first time in days.
        | "{friend} needs to rest now," said {parent}. "You cannot go in yet."
          So {hero} stood outside, under {friend}'s window, and [did a funny dance|put on a show with two
              puppets|sang all their songs].
          {friend} looked out and laughed so much that the bed shook.]

        ["Please come back tomorrow," said {friend}. | {hero} came every day after school. |]
        [Day by day, {friend} got better. | After some weeks, {friend} was well again.]
        [ On the first day outside, they went to the swings together.
        | "You made me well," said {friend}. "That is what friends do," said {hero}.]
        [ And when {hero} got sick the next month, guess who came? It was {friend}!
        | {hero} learned that a good friend is the best medicine.
        | They were even better friends than before.]
    """


def beach_day(t: Teller) -> str:
    hero, elder = t.child(), t.elder()
    return f"""
        {t.meet(hero)}
        [ One summer day, {hero} went to the beach with {elder}.
        | {hero} had never seen the sea. One hot day, {elder} took {hero.him} to the beach.]
        [ But the waves were big and loud, and {hero} was afraid of them.
        | "The sea is too big," said {hero}, and {hero.he} stayed on the blanket.
        | A wave splashed {hero}'s feet. It was so cold! {hero} ran back.]

        [ "We do not have to swim," said {elder}. "Let us look for shells."
        | "Let us walk where it is not deep," said {elder}, and held out a hand.]
        [ In a small pool, they saw [a crab that walked to the side|three tiny silver fish|a red starfish].
        | {hero} found a [white|pink|big] shell and held it to {hero.his} ear. It sang like the sea.]
        [ Step by step, {hero} went closer. First the water touched {hero.his} toes, and then {hero.his}
            knees.
        | {hero} saw a little crab in the sand. It was stuck, and it wanted to go back to the sea. {hero}
            carried it right into the water and forgot to be afraid.
        | "When a wave comes, we jump," said {elder}. One, two, three, jump! {hero} laughed and jumped
            again.]

        ["I am in the sea!" shouted {hero}. | "Look how far I am!" called {hero}. |]
        [ When it was time to go, {hero} did not want to leave.
        | They stayed until the sun was low and the sky was red.]
        [ "Goodbye, sea," said {hero}. "I am not afraid of you now."
        | {hero} took a shell home, and when {hero.he} held it, {hero.he} could hear the waves.
        | {hero} fell asleep in the car and dreamed of waves.]
    """


def snow_day(t: Teller) -> str:
    hero = t.child()
    friend = t.friend(hero)
    lonely = t.one(
        female("Miss Rose", "neighbor"), female("Miss Lane", "neighbor"), male("old Walter", "neighbor")
    )
    return f"""
        {t.meet(hero)}
        [One winter morning, everything was white.|One morning, {hero} looked out and saw snow everywhere.]
        [ {hero} put on {hero.his} boots and ran out to meet {hero.his} friend {friend}.
        | "Snow!" shouted {hero}. {hero.He} called {hero.his} friend {friend}, and they ran outside.]
        [ They threw snowballs and made snow angels.
        | They went down the hill on a red sled. Whoosh!
        | They caught snowflakes on their tongues. |]

        Next door lived {lonely}. {lonely.He} was very old, and the snow in front of {lonely.his} house was
            deep.
        [ "How can {lonely.he} get out?" asked {friend}.
        | {hero} saw {lonely.him} at the window. {lonely.He} looked sad.
        | "{lonely.He} cannot get to the store," said {hero}.]
        ["Let us help," said {hero}. | They stopped playing and got two shovels. |]
        [ It was hard work. They pushed and dug until there was a path to the street.
        | They dug and dug. {friend} got tired, so {hero} told jokes, and that made it easy.]
        [They even swept the steps. | Then they made a small snowman by the door. |]

        [The door opened. "You are so kind!" said {lonely}. | "Come in, come in!" called {lonely}.]
        [ They all drank hot chocolate by the fire.
        | There were warm cookies for everyone, and {lonely} told stories of long ago.]
        [ It was the warmest snow day ever.
        | After that, {hero} and {friend} visited {lonely} every week.
        | "You did not only clear the snow," said {lonely}. "You cleared my sad day, too."]
    """


def train_trip(t: Teller) -> str:
    hero, elder, parent = t.child(), t.grandparent(), t.parent()
    return f"""
        {t.meet(hero)}
        {elder} lived far away, so {hero} went there by train with {parent}.
        [ {hero} sat by the window and counted the [cows|trees|houses].
        | The train went over rivers and through dark tunnels.]
        [Chug, chug, chug went the wheels. | {hero} had never been on a train before. |]

        [ Suddenly the train stopped in the middle of a field. A [cow|sheep|goat] was standing in the way!
        | Suddenly the train stopped. A big tree had fallen in the way.]
        ["Will we be late?" asked {hero}. | Some people were angry. A baby began to cry.]
        [ {hero} shared {hero.his} [grapes|crackers|apples] with the people nearby, and soon everyone was
            talking.
        | {hero} began to sing a song that everyone knew. One by one, the people sang, too.
        | {hero} played peekaboo with a baby who was crying, and the baby laughed.]
        [After an hour, the train went on. | Before they knew it, the train was moving again.]

        [{elder} was waiting at the station. | When they got there, {elder} was waving a big red scarf.]
        [ "You poor thing, what a long trip!" said {elder}. "It was fun!" said {hero}. "I made many
            friends."
        | {hero} ran and jumped into {elder}'s arms.]
        [ That evening, {hero} told {elder} the whole story.
        | At dinner, {hero} told the story again and again, and every time it got longer.]
        [And {hero} could not wait for the trip back. | A trip is what you make of it.]
    """


CHILDREN: tuple[Plot, ...] = (
    lost_toy,
    sharing,
    dark_bedtime,
    rainy_day,
    gift,
    broken_thing,
    cooking,
    mended_toy,
    messy_room,
    new_baby,
    animal_in_need,
    building,
    planting_seed,
    learning,
    caterpillar,
    honest_finder,
    found_key,
    treasure_map,
    kite_in_tree,
    lost_in_market,
    first_day,
    on_the_stage,
    secret_party,
    sick_friend,
    beach_day,
    snow_day,
    train_trip,
)
