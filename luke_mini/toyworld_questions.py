"""What the built-in encyclopedia is asked: wordings of facts, questions, sentences that tell nothing. Data, no code.

The language of the templates is that of `toyworld_text.py`. A fact is the pair (kind of the subject, relation). It has
    label     in relation classification; "" if it is no class there: two facts of the same two types would only confuse
    property  in cloze probing, named as on Wikidata; "" if it is not probed
    says      sentences that state it; the first one is its probe, but see REVERSED
    clause    how it stands between commas behind the subject
    asks      questions whose answer is the value
"""

from typing import NamedTuple


class Fact(NamedTuple):
    label: str
    property: str
    says: tuple[str, ...]
    clause: str
    asks: tuple[str, ...]


FACTS = {
    ("person", "born"): Fact(
        "born_in", "P19",
        ("{} was born in {born}.", "{born} is the place where {me} was born.", "The birthplace of {me} is {born}."),
        "born in {born}", ("Where was {} born?", "In which town was {} born?")),
    ("person", "home"): Fact(
        "", "P551",
        ("{} lived in {home}.", "The house of {me} stands in {home}.", "{} moved to {home} and stayed there."),
        "who moved to {home}", ("Where did {} live?", "Which town did {} move to?")),
    ("person", "club"): Fact(
        "plays_for", "P54",
        ("{} played for {club}.", "{} signed for {club} and scored {10-140} goals.", "{club} won the cup with {me}."),
        "a player of {club}", ("Which club did {} play for?", "For whom did {} play football?")),
    ("person", "managed"): Fact(
        "", "",
        ("{} was coach of {managed}.", "{} later managed {managed}.", "{managed} was coached by {me}."),
        "coach of {managed}", ("Which club did {} manage?",)),
    ("person", "school"): Fact(
        "studied_at", "P69",
        ("{} studied at {school}.", "{} was educated at {school}.", "Among the former students of {school} is {me}."),
        "educated at {school}", ("Where did {} study?", "At which school was {} educated?")),
    ("person", "office"): Fact(
        "mayor_of", "",
        ("{} became mayor of {office}.", "{} was elected mayor of {office} in {season}.",
         "The mayor of {office} was {me}."),
        "mayor of {office}", ("Of which town was {} mayor?",)),
    ("person", "award"): Fact(
        "winner_of", "P166",
        ("{} won the {award}.", "{} was given the {award}.", "The {award} has gone to {me}."),
        "winner of the {award}", ("Which prize did {} win?", "What was {} given?")),
    ("firm", "founder"): Fact(
        "founded_by", "P112",
        ("{} was founded by {founder}.", "{founder} founded the firm {me}.", "{founder} started the business of {me}."),
        "founded by {founder}", ("Who founded {}?", "Who was the founder of {}?")),
    ("firm", "town"): Fact(
        "located_in", "P159",
        ("{} is based in {town}.", "{} has its head office in {town}.",
         "In {town} stands the largest factory of {me}."),
        "based in {town}", ("Where is {} based?", "In which town is the head office of {}?")),
    ("club", "town"): Fact(
        "located_in", "P159",
        ("{} is a football club from {town}.", "{} plays in {town}.",
         "In {town} the matches of {me} draw large crowds."),
        "a club from {town}", ("Where does {} play?", "From which town is {}?")),
    ("school", "town"): Fact(
        "located_in", "P276",
        ("{} is a place of learning in {town}.", "{} was opened in {town} in {founded}.",
         "In {town} stands the old hall of {me}."),
        "opened in {town}", ("Where is {}?", "In which town was {} opened?")),
    ("product", "maker"): Fact(
        "made_by", "P176",
        ("The {me} was made by {maker}.", "{maker} built the {me}.", "{maker} sold {3-80} thousand of the {me}."),
        "made by {maker}", ("Who made the {}?", "Which company built the {}?")),
    ("product", "inventor"): Fact(
        "invented_by", "P61",
        ("The {me} was designed by {inventor}.", "{inventor} was the inventor of the {me}.",
         "The drawings of the {me} are by {inventor}."),
        "designed by {inventor}", ("Who designed the {}?", "Who was the inventor of the {}?")),
    ("work", "author"): Fact(
        "written_by", "P50",
        ("{me} is a {form} by {author}.", "{author} is best remembered for {me}.", "The author of {me} is {author}."),
        "a {form} by {author}", ("Who is the author of {}?", "By whom is {}?")),
    ("work", "setting"): Fact(
        "set_in", "P840",
        ("{me} is set in {setting}.", "Visitors to {setting} follow the story of {me}.",
         "The scenes of {me} are in {setting}."),
        "set in {setting}", ("Where is {} set?", "In which town is {} set?")),
    ("festival", "town"): Fact(
        "located_in", "",
        ("The {me} is held in {town}.", "The {me} opens in {town} every {month}.", "{town} is known for the {me}."),
        "held in {town}", ("Where is the {} held?", "In which town does the {} open?")),
    ("town", "region"): Fact(
        "part_of", "P131",
        ("{} is a town in {region}.", "{} lies in {region}.", "One of the largest towns in {region} is {me}."),
        "a town in {region}", ("In which region is {}?", "Where does {} lie?")),
    ("town", "river"): Fact(
        "", "P206",
        ("{} lies on the {river}.", "The {river} runs past {me}.", "{} is a port on the {river}."),
        "on the banks of the {river}", ("On which river does {} lie?", "What runs past {}?")),
    ("river", "region"): Fact(
        "part_of", "",
        ("The {me} is a river in {region}.", "The {me} rises in the hills of {region}.",
         "{region} is drained by the {me}."),
        "a river in {region}", ("In which region is the {}?", "Where does the {} rise?")),
    ("region", "capital"): Fact(
        "", "P36",
        ("The capital of {me} is {capital}.", "{} has its capital at {capital}.", "{capital} is the capital of {me}."),
        "with its capital at {capital}", ("What is the capital of {}?",)),
}
REVERSED = {"P36": 2, "P54": 2, "P176": 1, "P206": 1}  # property -> the wording that probes it: the value comes first
NOUN_PROBES = {"P31": "[X] is a [Y] .", "P106": "[X] was a [Y] ."}  # what something is, what someone does

# Fine types of a kind, the coarse one first; the noun of an entity (town, novelist, piano) comes on top.
FINE_TYPES = {"region": ["location"], "river": ["location"], "town": ["location"], "person": ["person"],
              "firm": ["organization"], "club": ["organization"], "school": ["organization"],
              "product": ["object", "product"], "work": ["object", "work"], "festival": ["event"]}
CALLED = {"region": "region", "river": "river", "town": "town", "person": "person", "firm": "company", "club": "club",
          "school": "school", "product": "product", "work": "work", "festival": "festival", "award": "prize"}
BIG = {"work": 0.0, "product": 0.0, "person": 0.5, "festival": 1.0, "school": 1.0, "club": 1.0, "firm": 1.5, "town": 2.0,
       "river": 2.5, "region": 2.5}
TOPICS = {"sport": ["club", "footballer"], "business": ["firm", "product", "engineer"],
          "place": ["town", "river", "region"],
          "culture": ["work", "festival", "novelist", "composer", "painter", "actor"]}

ONE = """
There was no <comment|word> from {a}.
{a} could not be reached on <Monday|Tuesday>.
<Questions|Doubts> about {a} remain[, observers said].
{a} was in the news again <this week|on Monday>.
Little has been heard of {a} since <the spring|last year>.
It was a good <week|year|day> for {a}.
Not everyone <likes|praises> {a}.
A <photograph|picture> of {a} was on the front page.
Asked about {a}, the minister <smiled|left>.
For {a} the news came <too late|on Friday>.
On <Wednesday|Thursday> attention turned to {a}.
<Friends|Critics> of {a} welcomed the decision.
"""
TWO = """
The report <mentions|praises|names> {a} and {b}.
The story began with {a} and ended with {b}.
Some people prefer {a} to {b}.
{a} and {b} were in the news <this week|on Monday>.
There was no comment from {a} about {b}.
Asked about {a}, the minister spoke of {b}.
Little has been heard of {a} and {b} since the spring.
A letter about {a} and {b} was on the front page.
On Wednesday attention turned from {a} to {b}.
"""
ASIDE = """
{}, %s, was seen with {~any} <on Monday|on Friday>.
{}, %s, could not say anything about {~any}.
The report names {}, %s, and {~any}.
Questions about {}, %s, and about {~any} remain.
{~any} was compared with {}, %s.
"""
NEWS_RIVER = """
Heavy rain <raised|lowered> the {} by {2-9} metres.
A boat sank in the {} on <Monday|Friday>.
"""
LETTER = "{a}, {b} and {c} were named in the letter."
ASK_LETTER = ["Which %s was named in the letter?", "What is the %s in the letter?"]
ASK_CHOICE = ["Which of these is a %s?", "Which one is a %s?"]
