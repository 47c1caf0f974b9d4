"""Stories about animals."""

from litmoe.stories import vocabulary
from litmoe.stories.teller import Plot, Teller, a, female, male


def race(t: Teller) -> str:
    hero = t.animal()
    rival = t.friend(hero)
    goal = t.one("the old oak tree", "the big rock", "the bridge", "the end of the field", "the pond")
    return f"""
        {t.meet(hero)}
        [Every summer, the animals had a big race to {goal}.|One day, the animals planned a race to {goal}.]
        [ {hero} wanted to win, but {rival} the {rival.kind} said, "I am the fastest of all!"
        | "I will win," said {rival} the {rival.kind}. "You are too slow, {hero}."
        | "Nobody is as fast as I am," said {rival} the {rival.kind}.]
        ["I will do my best," said {hero}. | {hero} practiced every morning.]

        [ Ready, set, go! {rival} ran ahead at once, and {hero} came behind.
          {rival} was so far ahead that {rival.he} [lay down for a nap|stopped to eat berries].
          [ But {hero} did not stop. Step by step, {hero.he} went on.
          | {hero} went on and on and did not rest.]
          When {rival} looked up, {hero} was already at {goal}!
        | Ready, set, go! They ran side by side. Then {rival} [tripped over a root|stepped on a thorn] and
              cried out.
          {hero} could have won. But {hero.he} stopped and went back.
          [ "Lean on me," said {hero}. Slowly they walked to {goal} together.
          | {hero} helped {rival} up, and they came to {goal} at the same time.]
          All the animals cheered as loud as they could.
        | Ready, set, go! {hero} ran as fast as {hero.he} could. The wind blew in {hero.his} face.
          Near {goal}, {hero} was tired. "Go, {hero}, go!" called {hero.his} mother.
          {rival} came in first, and {hero} came in second. But {hero} had never run so fast before.]

        [ "Well done," said {rival}. "I was wrong about you."
        | "You ran very well," said {rival}. "You are a true friend."
        | {rival} looked at the ground. "I am sorry that I was rude," {rival.he} said.]
        [ {hero} felt as proud as a {"king" if hero.he == "he" else "queen"}.
        | Then everybody sat down and ate sweet [berries|apples|pears].]
        [ After that day, {hero} and {rival} always ran together.
        | And {hero} learned that doing your best is more important than being first.
        | From then on, nobody called {hero} slow.]
    """


def journey(t: Teller) -> str:
    hero = t.animal()
    guide = t.friend(hero)
    sight = t.one(
        "the sea", "the snow on the high mountain", "the great waterfall", "the lake where the swans live"
    )
    return f"""
        {t.meet(hero)}
        [ {hero} had heard about {sight} and wanted to see it.
        | All {hero.his} life, {hero} had dreamed of {sight}.]
        [ "It is far away," said {hero.his} mother. "Take some bread, and be careful."
        | So one morning, {hero} put some nuts in a little bag and set out.
        | "It is too far for you," said the old owl. But {hero} wanted to try.]

        [ First {hero.he} came to a wide river. There was no bridge.
        | On the first day, {hero.he} came to a dark forest with two paths.
        | After a long walk, there was a steep hill, and it began to rain.]
        [{hero} did not know what to do. | "What now?" said {hero}, and {hero.he} sat down on a stone. |]
        Then {hero.he} met {a(guide.kind)} named {guide}, who [was hungry|had nothing to eat].
        [{hero} shared {hero.his} food with {guide.him}. | "Here, take half of my food," said {hero}.]
        [ "You are kind," said {guide}. "I know the way. I will go with you."
        | "I know this land well," said {guide}. "Follow me!"]
        [ At night, they slept under the stars.
        | {guide} knew all the safe paths, and {hero} told stories along the way. |]

        [ On the third day, they stood on a hill, and there was {sight}.
        | And then, at last, {hero} saw {sight}.]
        [{hero} could not speak. It was so beautiful. | "It is even better than my dream," said {hero}. |]
        [ When {hero} came home, {hero.he} had a story to tell and a new friend.
        | {hero} was glad that {hero.he} had not been too afraid to go.
        | It was a long way home, but with a friend it felt short.]
    """


def storm(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    home = vocabulary.ANIMAL_HOMES[friend.kind]
    return f"""
        {t.meet(hero)}
        [ {hero.His} friend {friend} the {friend.kind} lived {home}.
        | {hero} often visited {friend} the {friend.kind}, who lived {home}.]
        [One night, there was a terrible storm.|One evening, black clouds came, and the wind began to howl.]
        [The thunder went boom, and the rain came down hard.|Trees bent, and branches flew through the air. |]

        [ There was a knock at the door. It was {friend}, wet and cold.
        | In the middle of the night, {hero} heard somebody cry. It was {friend}.]
        [ "My home is gone!" {friend.he} said. "The storm broke it."
        | "The rain came into my home," said {friend}. "I have no place to sleep."]
        [ "Come in," said {hero}. "My home is small, but there is room for two."
        | {hero} gave {friend.him} a dry blanket and a cup of hot tea.]
        [ When the thunder was loud, they counted together and told jokes.
        | They sat close together and sang until the storm was over.
        | {friend} was afraid of the thunder, so {hero} held {friend.his} paw. |]

        [In the morning, the sun was shining. | The next day, the sky was blue again.]
        [ All the animals came to help. They carried sticks, moss and leaves, and soon {friend} had a new
            home.
        | "Let us fix your home," said {hero}. They worked for three days, and then it was better than
            before.
        | {hero} called the neighbors. One brought wood, one brought grass, and one brought lunch.]
        [ "Thank you," said {friend}. "You gave me more than a roof."
        | {friend} invited everyone to a big dinner in the new home. |]
        [ {friend} knew that a good friend is like a house in the storm.
        | And when the next storm came, they were not afraid.
        | From that day on, {hero} and {friend} were like a family.]
    """


def boaster(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    boast, trouble, rescue = t.row(f"""
        - I can jump over the stream | {hero.He} fell right into the cold water and could not get out |
            held out a long branch and pulled {hero.him} to the bank
        - I can carry the biggest pumpkin in the field | {hero.He} lifted it, but it was too heavy and fell on
            {hero.his} foot | pushed until the pumpkin rolled away
        - I can walk on the high wall with my eyes closed | {hero.He} slipped and hung from the wall by
            two paws | ran to get a pile of soft hay and put it under {hero.him}
        - I can find my way out of any cave | {hero.He} ran inside, but it was so dark that {hero.he}
            got lost | called from outside, so {hero.he} could follow the sound
    """)
    return f"""
        {t.meet(hero)}
        [ {hero} liked to say how great {hero.he} was.
        | {hero} was a good friend, but {hero.he} liked to show off.]
        ["I am the best at everything," {hero.he} said all day long. | The other animals were tired of it. |]
        [ One day, {hero} laughed at {friend} the {friend.kind} because {friend.he} was careful.
        | "You never do anything bold," {hero} told {friend} the {friend.kind}.]

        "{boast}!" said {hero}. "Watch me!"
        ["Please do not," said {friend}. "It is not safe." | "That is a bad idea," said {friend}. |]
        [But {hero} did not listen. | {hero} only laughed. |]
        {trouble}. "[Help! Help!|Help me!]" cried {hero}.
        [ The others thought it was a joke, but {friend} did not.
        | {friend} did not laugh.
        | {friend} came at once. |]
        {friend} {rescue}.

        [ {hero} was safe, but {hero.he} was very quiet.
        | {hero}'s ears were hot, and {hero.he} looked at the ground.]
        [ "I was silly," {hero.he} said. "Thank you for helping me."
        | "I laughed at you, and you still helped me," said {hero}. "I am sorry."]
        [ "We all make mistakes," said {friend}.
        | "You do not have to be the best," said {friend}. |]
        [ After that, {hero} did not show off any more.
        | From then on, {hero} said nice things about the others.
        | Now {hero} listened when a friend gave {hero.him} good advice.]
    """


def picnic(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    mine, yours = t.two("apples", "nuts", "bread and honey", "berries", "cheese", "carrot cake")
    return f"""
        {t.meet(hero)}
        {t.day()}, {hero} and {friend} the {friend.kind} had a picnic [in the meadow|by the river|under a
            big tree].
        [{hero} brought {mine}, and {friend} brought {yours}. | They had {mine} and {yours} in a basket.]
        [ They laid the food on a blue cloth and went to wash.
        | "Let us play first and eat later," said {friend}.]

        [ When they came back, half of the food was gone!
        | But when they sat down to eat, there was almost no food left!]
        [ "Did you eat it?" asked {hero}. "No! Did you?" asked {friend}.
        | {hero} looked at {friend}, and {friend} looked at {hero}. They were both upset.]
        Then they saw a line of crumbs in the grass, and they followed it to a bush.
        [ There sat a thin little bird with three babies. "We were so hungry," said the bird.
        | There were a hundred ants. "We need food for the winter," said the smallest ant.
        | There sat a young chipmunk. "I was hungry, and I was afraid to ask," it said.]

        [ "You only had to ask," said {hero}. "Come and sit with us."
        | {friend} thought for a moment. "There is enough for all of us," {friend.he} said.
        | {hero} was not angry any more. "Next time, please ask," {hero.he} said, "and we will share."]
        [ So they all ate together, and nobody was hungry.
        | They cut the rest of the food into small pieces, and everyone got some.]
        ["I am sorry I thought it was you," {hero} told {friend}.|Then they sang and danced until evening. |]
        [ It was a small lunch, but it was a big party.
        | And the next time, {hero} and {friend} took a bigger basket.
        | Food tastes best when it is shared.]
    """


def catching_the_moon(t: Teller) -> str:
    hero = t.animal()
    wise = t.one(male("the old owl", "owl"), female("the old turtle", "turtle"))
    return f"""
        {t.meet(hero)}
        [Every night, {hero} looked up at the moon. | {hero} loved the moon more than anything.]
        [ "I want to have it," said {hero}. "It would light up my home."
        | "I will bring it home and keep it," {hero.he} thought.]
        [ So {hero} climbed the highest hill and reached up. But the moon was still far away.
        | {hero} stood on a rock and jumped. But the moon was too high.]

        [ On the way home, {hero} came to a pond. There was the moon, right in the water!
        | Then {hero} saw something bright in the pond. It was the moon!]
        ["The moon fell down!" cried {hero}. | "Now I will catch you," whispered {hero}. |]
        [ {hero.He} put in a net and pulled. The moon broke into a hundred pieces.
        | {hero.He} put a bucket in the water, but the bucket came up dark.
        | {hero.He} jumped in. Splash! The water was cold, and the moon was gone.]
        ["I broke the moon!" cried {hero}. | {hero} sat down and cried. |]

        [ "Look up," said {wise}, who had seen it all.
        | Then {wise} came by and laughed softly. "Look up, {hero}," {wise.he} said.]
        There was the moon, high in the sky, where it had always been.
        [ "The moon belongs to everyone," said {wise}. "You can just look."
        | "It was only a picture in the water," said {wise}. "The real moon shines for all of us."]
        [ {hero} smiled. That night, {hero.he} slept with the window open, and the moon shone on {hero.his}
            bed.
        | {hero} was glad. How dark it would be for the others if the moon were in {hero.his} home!
        | So they sat down and looked at the moon together, until {hero} fell asleep.]
    """


def too_many_nuts(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    food, one_food = t.row("""
        - nuts | nut
        - berries | berry
        - apples | apple
        - mushrooms | mushroom
        - pears | pear
    """)
    return f"""
        {t.meet(hero)}
        One fall day, {hero} found a place full of {food}.
        ["They are all mine!" said {hero}. | "I will tell nobody," {hero.he} thought.]
        [ {friend} the {friend.kind} came by. "May I have one {one_food}?" {friend.he} asked. "No," said
            {hero}. "I found them."
        | {hero.His} friend {friend} the {friend.kind} had found no food that day. But {hero} did not share.]

        [ {hero} put more and more {food} into a big sack.
          But the sack was so heavy that {hero.he} could not move it.
          {hero.He} pulled and pulled. Rip! The sack broke, and the {food} fell into the mud.
          {friend} came and helped to pick up every {one_food}.
        | {hero} ate and ate. {hero.He} ate until there was not one {one_food} left.
          Then {hero.his} tummy began to hurt. "Oh, oh!" cried {hero}.
          {friend} heard it and came with [warm tea|a soft blanket]. {friend.He} stayed all night.
        | {hero} filled {hero.his} home with {food}, up to the roof.
          But when night came, there was no room to sleep inside. It was cold, and it began to rain.
          "Come and sleep at my home," said {friend}.]

        [ "Why are you so good to me?" asked {hero}. "You are my friend," said {friend}.
        | {hero} was ashamed. "I was greedy," {hero.he} said. "I am sorry."]
        [ The next day, {hero} showed {friend} the best places to find food.
        | The next day, they picked {food} together and shared them.
        | The next day, {hero} called all the animals, and they had a great feast.]
        [ {hero} learned that enough is better than too much.
        | In winter, when {hero} had nothing left, {friend} shared {friend.his} food, too.
        | And {hero} found that food tastes better with a friend.]
    """


def forest_band(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    mine, yours = t.two("a drum from an old pot", "a flute from a reed", "a harp from string and wood")
    return f"""
        {t.meet(hero)}
        [ {hero} loved music, but the forest was very quiet.
        | The birds could sing, but {hero} could not. That made {hero.him} sad.]
        ["I will make my own music," {hero.he} said. | One day, {hero.he} had an idea. |]
        {hero} made {mine}.

        [But the first song was awful. | {hero} played all morning. It was very loud.]
        ["Stop that noise!" called the old owl. | The birds flew away. |]
        Only {friend} the {friend.kind} came closer. "I like it," {friend.he} said. "May I play with you?"
        {friend} made {yours}.
        [ They practiced by the stream, where nobody could hear them.
        | At first, one was too fast, and the other was too slow. So they learned to listen to each other.]
        [A frog joined them with two sticks. | Then a shy young turtle came with a little bell.]

        [ On the night of the full moon, they played for all the animals.
        | One evening, they played in the middle of the forest.]
        [It sounded sweet and merry. | Now the music was soft and lovely. |]
        [The birds came back and sang along. | Everybody danced, and even the old owl tapped his foot. |]
        [ "Play it again!" everyone shouted.
        | "One of us makes noise," said {hero}, "but all of us make music."
        | And {hero} was so happy that {hero.he} played until the stars went to sleep.]
        [From then on, the forest was never too quiet again. | They played together every week. |]
    """


def false_alarm(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    danger, real = t.row(f"""
        - Help! A wolf! | a big gray wolf came out of the trees
        - Help! Fire! | {hero} saw smoke in the dry grass
        - Help! I am stuck! | {hero} put a foot into a hole and could not pull it out
        - Help! The water is rising! | the river came over its bank
    """)
    return f"""
        {t.meet(hero)}
        [{hero} liked to play tricks. | {hero} was often bored, so {hero.he} played tricks.]
        One day, {hero.he} shouted, "{danger}"
        [ {friend} the {friend.kind} came running, and so did all the others. But there was nothing wrong.
        | {friend} the {friend.kind} and all the animals ran to help. But nothing was wrong.]
        ["I tricked you!" laughed {hero}. | {hero} laughed so hard that {hero.he} fell down.]

        [ The next day, it was the same, and the animals were angry.
        | {hero} did it again the next day, and the day after that.]
        ["That is not funny," said {friend}. | "One day we will not come," said {friend}. |]
        But then, one evening, {real}.
        "{danger}" cried {hero}. [But nobody came.|The animals heard it and only shook their heads.]
        [ Only {friend} stopped to think. "{hero} sounds different," {friend.he} said and ran.
        | {hero} called until {hero.his} voice was almost gone. At last {friend} came to look.]

        [ {friend} saw that it was true and called the others. Together they saved {hero}.
        | "It is real! Come quickly!" shouted {friend}. The others came, and soon {hero} was safe.]
        [ "I am sorry for my tricks," said {hero}. "I will not do it again."
        | {hero} said sorry to every one of them.]
        [ And {hero.he} kept {hero.his} word.
        | After that, {hero} told funny stories, and those made everyone laugh.
        | {hero} learned that when you lie too often, nobody knows when you tell the truth.]
    """


def forgotten_birthday(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    present = t.one(
        "a warm scarf", "a soft pillow", "a tiny lamp", "a new cup", "a wooden boat", "a round hat"
    )
    return f"""
        {t.meet(hero)}
        [ One morning, {hero} woke up very happy. It was {hero.his} birthday!
        | It was {hero}'s birthday, and {hero.he} jumped out of bed.]
        [{hero.He} waited for a knock at the door. But nobody came.|But there was no cake, and nobody sang.]
        So {hero} went to see {friend} the {friend.kind}.

        [ "Do you know what day it is?" asked {hero}. "Yes, it is Friday," said {friend}. "I am very busy."
        | "Hello, {hero}," said {friend}. "I have no time today." And {friend.he} shut the door.]
        [ {hero} asked the others, too, but they were all in a hurry.
        | At the pond, everyone looked away and whispered. |]
        [ "They forgot me," {hero} thought, and a tear rolled down {hero.his} cheek.
        | {hero} felt very lonely and walked around alone all day. |]
        [ When it got dark, {hero.he} went home.
        | In the evening, there was a note on {hero.his} door. "Come to the big tree," it said.]

        [Suddenly there were lights everywhere. | Then a hundred little lanterns began to shine.]
        "Happy birthday, {hero}!" all the animals shouted.
        [ There was a cake with [berries|honey|nuts] on top, and {friend} gave {hero.him} {present}.
        | {friend} came up with {present}. "I made it for you," {friend.he} said. "That is why I was so
            busy."]
        [ "I thought that you forgot," said {hero}. "We could never forget you," said {friend}.
        | {hero} laughed and cried at the same time. |]
        [ They danced until the moon went down.
        | It was the best birthday of {hero.his} life.
        | {hero} knew that {hero.he} was loved.]
    """


def narrow_bridge(t: Teller) -> str:
    hero = t.animal()
    other = t.friend(hero)
    load, other_load = t.two(
        "a basket of eggs", "a bag of corn", "a big pumpkin", "a jar of honey", "a pile of wood"
    )
    return f"""
        {t.meet(hero)}
        [ {t.day()}, {hero} was carrying {load} to the market.
        | {t.day()}, {hero} had to bring {load} to {hero.his} aunt.]
        On the way was a bridge so narrow that only one could cross.
        In the middle of it, {hero} met {a(other.kind)} named {other}, who was carrying {other_load}.

        "Go back," said {hero}. "I was here first." "No, I was here first," said {other}.
        [ They stood nose to nose, and neither wanted to move.
        | They stood there for an hour, and both got angry. |]
        [ {hero} pushed a little, and {other} pushed back. The bridge shook. They were both afraid!
        | Dark clouds came, and it began to rain. They were both cold and wet.
        | An old [goat|goose] came by and said, "If nobody goes back, nobody goes on."]
        [ "This is silly," said {hero}. "I will go back, and you can cross first."
        | "Wait," said {other}. "You sit down, and I will step over you."
        | "I am sorry," said {hero}. "You look tired. Please go first."]

        [ And so they both got across, and not [a thing|one thing] fell into the water.
        | It took only a minute.]
        [ "Thank you," said {other}. "Let me help you carry that."
        | Then {other} saw that {hero}'s load was heavy, and {other.he} helped {hero.him} carry it.
        | "You are nicer than I thought," said {other}. "So are you," said {hero}. |]
        [ After that, they met at the bridge every week and ate lunch together.
        | {hero} learned that a kind word opens the way.
        | The next summer, they built a wider bridge, big enough for two.]
    """


def lost_little_one(t: Teller) -> str:
    hero = t.animal()
    baby, food, mother_sign = t.row("""
        - duckling | some soft grass | a mother duck was swimming around and around on the pond
        - chick | some corn | a mother hen was calling behind the fence
        - piglet | an apple | a mother pig was looking behind every tree
        - lamb | some sweet clover | a mother sheep was standing at the gate
        - fawn | a carrot | a mother deer was running down the path
    """)
    return f"""
        {t.meet(hero)}
        [ {t.day()}, {hero} heard somebody cry behind a bush.
        | {t.day()}, {hero} saw something small on the path.]
        It was a little {baby}. [It was shaking.|It looked very tired.|It had no one with it.]
        [ "I lost my mother," it said.
        | "Where is my mother?" it asked. "I ran after a butterfly, and now I am lost."]

        [ {hero} was going to a party, but this was more important.
        | "Do not be afraid," said {hero}. "I will help you." |]
        {hero} gave the {baby} {food} and [wiped away its tears|let it rest for a while].
        [ First they asked the owl, but the owl had seen nothing. Then they asked the bees. "Go to the
            farm," said the bees.
        | They looked for footprints in the mud, and they followed them past the mill and over the hill.
        | They climbed on top of a big rock, so they could see far.]
        [ When it got scared, {hero} sang a song.
        | It was a long way, and the sun was already low.
        | The {baby} told {hero} about its home and felt better. |]

        Then they saw that {mother_sign}.
        [ "Mama!" cried the {baby}, and it ran as fast as it could.
        | The {baby} gave a happy cry and ran to her.]
        [ "How can I thank you?" asked the mother. "It was nothing," said {hero}.
        | "You brought my baby back," said the mother. "You will always be welcome here." |]
        [ {hero} went home under the stars with a warm feeling inside.
        | After that, the {baby} often came to play with {hero}.
        | That evening, {hero} gave {hero.his} own mother an extra hug.]
    """


def cannot_sleep(t: Teller) -> str:
    hero = t.animal()
    friend = t.friend(hero)
    first, second = t.two(
        "counted the stars",
        "drank some warm milk",
        "turned the pillow around",
        "read a book",
        "sang a slow song",
        "ate a small cookie",
    )
    return f"""
        {t.meet(hero)}
        [One night, {hero} could not sleep. | It was late, and everyone was asleep. Only {hero} was awake.]
        [ {hero.He} {first}. It did not help. {hero.He} {second}. That did not help, either.
        | First {hero.he} {first}, and then {hero.he} {second}. But {hero.his} eyes stayed open.]
        [The night was long and very still. | {hero} felt like the only one in the world.]

        [ Then {hero.he} saw a light in the home of {friend} the {friend.kind}.
        | So {hero.he} went outside. On a bench sat {friend} the {friend.kind}.]
        ["Can you not sleep, either?" asked {hero}. "No," said {friend}. | "I cannot sleep," said {hero}.]
        [ {friend} [had had a bad dream|missed {friend.his} brother, who was far away]. {hero} listened to
            {friend.him} and held {friend.his} paw.
        | "I had a fight with my sister," {friend.he} said. "Tell her tomorrow that you are
            sorry," said {hero}.
        | "What keeps you awake?" asked {friend}. "I am worried about [the big race|my sick grandma]," said
            {hero}. "It helps to talk about it," said {friend}.]
        [ They looked at the moon and talked in low voices.
        | They shared a blanket and listened to the crickets. |]

        [ After a while, {friend} yawned. Then {hero} yawned, too.
        | {hero} felt lighter now, and {hero.his} eyes began to close.]
        [ "Good night, {friend}," said {hero}. "Good night, {hero}," said {friend}.
        | They said good night and went to bed.]
        [ And before {hero} could count to ten, {hero.he} was asleep.
        | {hero} slept until noon, and {hero.he} dreamed of [honey|clouds|the sea].
        | Soon they were both asleep. A good talk is better than a hundred sheep to count.]
    """


ANIMALS: tuple[Plot, ...] = (
    race,
    journey,
    storm,
    boaster,
    picnic,
    catching_the_moon,
    too_many_nuts,
    forest_band,
    false_alarm,
    forgotten_birthday,
    narrow_bridge,
    lost_little_one,
    cannot_sleep,
)
