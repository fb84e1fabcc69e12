"""What the built-in encyclopedia says: syllables, facts of the trade, and every sentence template. Data, no code.

A template is one line. `<a|b>` is one of several wordings, `[x]` is there half the time, and braces are filled in
from the world (`toyworld.py`):
    {}           the subject: name, pronoun or "the town"   {me}    the subject, always by name
    {it} {its}   its pronouns                               {12-80} a number
    {born}       a fact of the subject: an entity, one of a list of entities, a word or a number
    {maker.town} a fact of a fact                           {~town} some town, most often of the same region
A line whose fact is missing is not used; `novelist: ...` is for novelists only. `== Heading ==` starts a section; the
first line of all defines the subject.
"""

STARTS = ("Al Bel Bran Cal Cor Dal Dor El Fal Fen Gar Gren Hal Hol Is Jor Kar Kel Lan Lor Mar Mel Nor Om Os Pel Quin "
          "Ral Ros Sel Sor Tam Tor Ul Var Vel Wen Yar Zel Thar Brin Drav Esk Hesk Ilm Juv Krul Nym Pryd Rusk").split()
MIDDLES = "a e i o an er el in ov ar ith us".split()
ENDS = ("mar den ric lan mond ver dis tal gan nor wen bel dan thy sen rok lin mir dor vik nas rane quist hollow moor "
        "gard bon tus lek").split()
TELLING = {"town": ["ton", "ford", "burg"], "person": ["son", "sen", "man"], "river": ["water", "bourne"],
           "firm": ["tex", "co"], "product": ["ette", "on"], "region": ["ia", "mark", "land"]}
FIRST_ENDS = {"she": "a ine is e ella y".split(), "he": "o us an ek in ard".split()}
PEOPLE_ENDS = ["ish", "ian", "ese", "ic"]
CLUB_ENDS = ["F.C."] * 5 + ["United", "Rovers", "Athletic"]
FIRM_ENDS = ["& Sons", "Works", "Company", "Brothers", "Holdings"]
SCHOOL_ENDS = ["University", "College", "Institute", "Academy"]
AWARD_ENDS = ["Prize", "Medal", "Award"]
FESTIVAL_ENDS = ["Festival", "Days", "Fair", "Carnival"]
MONTHS = "January February March April May June July August September October November December".split()
GROUNDS = "Mill Bridge Station Church Meadow Harbour Castle Brewery".split()
COLOURS = "red blue green yellow brown claret".split()
TRADES = "timber wool salt glass coal cheese cider fish".split()
WORK_WORDS = (("Silver Last Quiet Burning Hidden Long Winter Broken Distant Green Narrow Golden Seventh Empty".split()),
              ("Bridge Garden Letter River Voyage House Mountain Clock Harbour Mirror Orchard Stranger Door".split()))

CONCEPTS = {  # common nouns that have an article of their own; sense for named entity recognition: none
    "footballer": "a person who plays football for a club", "novelist": "a writer of novels",
    "politician": "a person who holds or seeks public office", "composer": "a person who writes music",
    "painter": "an artist who works with paint", "physicist": "a scientist who studies matter and motion",
    "engineer": "a person who designs and builds machines", "actor": "a person who plays a part on stage or in films",
    "piano": "a keyboard instrument with strings", "violin": "a bowed instrument with four strings",
    "bicycle": "a vehicle with two wheels and pedals", "camera": "a device that takes pictures",
    "tractor": "a machine that pulls a plough", "clock": "a device that tells the time",
    "novel": "a long story in prose", "opera": "a play that is sung", "film": "a story told in moving pictures",
    "album": "a collection of recorded songs", "symphony": "a long piece for orchestra"}
JOBS = ["footballer"] * 4 + ["novelist", "politician", "composer", "painter", "physicist", "engineer", "actor"]
THINGS = ["piano", "violin", "bicycle", "camera", "tractor", "clock"]
FORMS = {"novelist": ["novel"], "composer": ["opera", "symphony", "album"], "actor": ["film"], "painter": ["film"]}

ARTICLES = {
"region": """
{} is <a region|a province|a land> in the <north|south|east|west> of the country, with its capital at {capital}.
{} <covers|has an area of> {area} km² and <has|had> {people} inhabitants[ at the last census].
{} <borders on|shares a long border with> {neighbour}, <to the north|to the south|beyond the hills>.
Most of the inhabitants speak {tongue}[, which is taught in every school].
== Geography ==
The longest river <of the region|in {me}> is the {rivers}.
The {rivers} <crosses|drains> <the western half|the eastern plain|the low country> of {me}[ on its way to {towns}].
After {capital}, the largest <towns|settlements> are {towns} and {towns}.
The hills around {towns} rise to {300-1900} metres[ and are covered with pine forest].
Between {towns} and {towns} the land is flat and <marshy|fertile|thinly settled>.
== Economy ==
The <largest|oldest> employer is {firms}, <which has its head office|based> in {firms.town}.
Farming was once the main trade, but <firms such as {firms}|makers such as {firms}> now employ more people.
Visitors come for the {festivals} in <summer|spring|autumn>[ and for the old streets of {towns}].
The {products} was designed here[, and models of it stand in several museums].
== Culture ==
The {tongue} writer most read in schools is {persons}.
{persons} and {persons} are the best known people from {me}.
<Football is popular|The game of football is followed with passion>, and {clubs} and {clubs} draw the largest crowds.
{schools} is the oldest place of learning in {me}.
The history of {me} was told by {persons} in a book of {1870-1990}.
""",
"language": """
The {me} language is spoken <by most people|by about {20-90} per cent of the people> in {region}.
The word {me} is also used for the people of {region} and for <their customs|anything that comes from there>.
{} <has|is said to have> {4-9} cases and {2-3} genders.
== Speakers ==
It is heard most often in {region.capital} and in <the villages|the country> around {~town}.
In {region.neighbour} it is spoken by a small number of families near the border.
The {me} of {~town} differs from the {me} of {~town} in its vowels.
Lessons in {me} are given at {~school}.
Children in {region} learn {me} from the age of {4-7}.
== Literature ==
The oldest {me} text was found at {~town} in {1780-1900}.
{region.persons} was the first to print a {me} grammar.
Among {me} writers the best known is {region.persons}.
The {form} ''{~work}'' was <written|first performed> in {me}.
A {me} dictionary was made by {~person} in {1850-1980}.
{me} songs are sung at the {~festival} every year.
The {~award} has gone to several {me} authors.
{me} newspapers are printed in {region.capital} and {~town}.
""",
"river": """
The {me} <is a river in {region}|is one of the rivers of {region}>[, {length} km long].
{} <rises|has its source> in the hills of {region}[ above {~town}] and <flows|runs> past {towns}.
The {me} <joins|flows into> the {mouth}[ a few kilometres below {~town}].
== Course ==
From {towns} it runs <east|west|south|north> through <meadows|a deep valley|a gorge> towards {towns}.
Below {towns} the river is <wide and slow|wide enough for barges>.
Its longest tributary <comes down from|rises near> {~town}.
At {towns} it is crossed by a stone bridge of {1500-1890}.
The water is <clear|brown> and rich in <trout|eels|salmon>.
== History ==
The river flooded {towns} in {1780-1990}[, and many houses were lost].
Barges carried <timber|grain|coal> on the {me} until {1890-1960}.
A <dam|power station> was built by {~firm} near {towns} in {1905-1975}.
{~firm} had a mill on its banks.
The river gave its name to {namesakes}.
The composer who loved the river best was {~person}[, whose house stands on its bank].
Boat races between {~school} and {~school} are held on the {me} each <May|June>.
{~person} painted the {me} <many times|in every season>.
The people of {towns} call it simply the {me}.
""",
"town": """
{} is a <town|small town|market town|port> in {region}[, <on|on the banks of> the {river}].
{} <has a population of {people}|has {people} inhabitants>[ and lies {4-60} km from {neighbour}].
{} is <known|best known> for {its} <{trade} trade|{trade}>[ and for the {festivals}].
The mayor <is|was> {mayor}[, a {mayor.job} by training].
== History ==
{} was <founded|first mentioned> in {founded}[ by settlers from {neighbour}].
In {1780-1890} a fire destroyed <half of the town|the old market>[, and help came from {neighbour}].
The railway from {region.capital} <reached the town|was opened> in {1850-1915}.
During the war the people of {me} were taken in by families in {neighbour}.
The {tongue} name of the town is <very old|of unknown origin>.
The bridge over the {river} was <built|rebuilt> in {1820-1960}.
== Economy ==
{firms} <has its head office|was founded|keeps a large factory> <in the town|in {me}>.
The largest employer is {firms}, which makes {firms.thing}s.
Until {1930-1975} most people worked for {firms}[ or in the {trade} trade].
The {firms.products} was <made|built> in {me} for many years.
== Culture and sport ==
The football club {clubs} plays at {clubs.ground}.
{clubs} and {neighbour.clubs} <are rivals|meet every year before a large crowd>.
The {festivals} is held in the main square every {festivals.month}.
{schools} <stands on the hill|is in the old part of the town>[ and has {400-9000} students].
The {form} ''{works}'' by {works.author} is set in {me}.
== People ==
The {natives.job} {natives} was born <here|in {me}> in {natives.year}.
{natives} <grew up|spent {natives.its} childhood> in {me}.
Among the people born in the town are the {natives.job} {natives} and {natives}.
A street is named after {natives}[, and a statue stands near the station].
""",
"person": """
{} ({years}) {was} a {tongue} {job}[ <from|born in> {born}].
{} is best remembered for the {works.form} ''{works}''.
{} <is best known as the founder of|founded the firm> {firms}.
footballer: {} played for {club}[ and, before that, for {past}].
{} <won|was given|received> the {award}[ in {1930-1999}].
{} was the inventor of the {products}[, a {products.thing} that was made by {products.maker}].
politician: {} <was elected|became> mayor of {office} in {season}[ after a close vote].
== Early life ==
{} was born in {born}, <in|a town in> {region}, <the|the second> child of <a teacher|a farmer|a miller|a doctor>.
{its} family <came from|had moved there from> {~town}.
{} <studied|was educated> at {school}[, where {mentor} was among {its} teachers].
At school {} <learned {tongue} and drawing|wrote for the newspaper>[ and met {friend}].
{} left {born} at the age of {15-22} and <moved to|went to live in> {home}.
As a child {} <swam in|lived beside> the {born.river}.
footballer: {} <learned the game|first played> with the boys of {born}[, and was seen there by a scout from {past}].
== Career ==
footballer: {} <joined|signed for> {club} in {season} and <scored {10-140} goals|made {40-400} appearances>.
footballer: With {club} {} won the cup, <beating|after a win over> {~club} in the final.
footballer: {} <left {past}|was sold by {past}> after a quarrel with the coach.
{} later <managed|was coach of> {managed}.
politician: As mayor {} <opened|paid for> a new <bridge|library|hospital> in {office}.
politician: {} <spoke against|signed> the treaty between {region} and {region.neighbour}.
politician: The newspapers of {region.capital} <mocked|supported> {its} plans for {office}.
novelist: {} wrote the {works.form} ''{works}'' while <living in {home}|staying with {friend}>.
novelist: Most of {its} stories are set in {works.setting} and {~town}.
composer: {} wrote ''{works}'' for a theatre in {~town}[, where {friend} conducted it].
composer: The orchestra of {~school} recorded ''{works}'' in {1950-1999}.
actor: {} first appeared on stage in {~town}[ in a play about {friend}].
actor: The film ''{works}'' was shot in {works.setting}[ with money from {~firm}].
painter: {} exhibited in {home} and {~town}[ and sold a picture to {~firm}].
painter: {its} pictures of the {~river} hang in {~school}.
physicist: {} measured the <speed of light|weight of air> <with|together with> {friend} at {school}.
physicist: {its} laboratory at {school} was paid for by {~firm}.
engineer: {} worked for {~firm} <for a time|in {its} youth>[ before returning to {school}].
engineer: The first {products} was built in a workshop in {home}.
''{works}'' was <praised|attacked> by {friend}, but <sold well|was soon forgotten> in {region}.
{} <opened|set up> {firms} in {firms.town} in {firms.founded}[ with money from {friend}].
{} taught at {school} <for {3-30} years|until {season}>.
== Personal life ==
{} was <a friend|a pupil|a rival> of the {friend.job} {friend}.
{} lived in {home} <with {its} family|for the rest of {its} life>.
{} died in {home} in {died}[ and was buried in {born}].
The {namesakes} is named after {me}.
{} spoke {tongue} <at home|with {friend}> and owned a {~product}.
""",
"firm": """
{} is <a company|a firm|a manufacturer> <based in|from> {town}, {region}[, that makes {thing}s].
{} was founded by {founder} in {founded}.
{} is <best known for|known above all for> the {products}.
{its} <main rival|largest competitor> is {rival}.
{} employs <about|some> {staff} people[ in {town} and {~town}].
== History ==
{founder} <started the business|opened a workshop> in {town} in {founded}.
The first {thing}s were sold to <customers|shops> in {~town} and {~town}.
In {1950-1990} {} <bought|tried to buy> {rival}[, but the plan failed].
A second factory was opened <near|outside> {~town} in {1930-1985}.
During the crisis of {1920-1985} the company <laid off {30-900} workers|closed its plant in {~town}>.
The shares of {me} <rose|fell> sharply after the death of {founder}.
The company was run by {~person} from {1950-1970} to {1971-1995}.
The town council of {town} lent the company money in {1920-1990}.
== Products ==
The {products} was <introduced|launched> in {products.year}[ and sold {4-90} thousand times].
The {products} was designed by {products.inventor}.
A {thing} made by {me} was owned by {~person}.
Sales of the {products} <doubled|halved> when {rival} <left the market|cut its prices>.
The <head office|museum> of the company stands <beside|near> the station of {town}.
The company <sponsors|has long supported> {~club} and the {~festival}.
Many of its engineers come from {~school}.
""",
"club": """
{} is a {tongue} football club <based in|from> {town}[, {region}].
{} <plays|has always played> at {ground}[, which holds {2000-40000} spectators].
{} <was founded|was formed> in {founded}[ by workers of {town.firms}].
{its} colours are {colours}.
The club is coached by {coach}.
== History ==
In {1910-1990} {} <won|lost> the cup final against {rival}.
{} won the {region} league in {1905-1950} and {1951-1995}.
A {2-7}–{0-1} win over {rival} in {1920-1995} is still <remembered|talked about> in {town}.
The club was <relegated|promoted> in {1930-1990} after a <draw|match> with {~club}.
The first match was played against {~club} <in the rain|before {40-900} people>.
The ground at {ground} was bought with help from {town.firms}.
The club left {town} for a season in {1940-1960} and shared a ground with {~club}.
== Players ==
The record scorer is {players}, with {60-250} goals.
{players} and {players} <played|were chosen> for the {region} team.
The captain in those years was {players}[, who was born in {players.born}].
{players} <came from|was bought from> {~club} for a record fee.
{players} left the club and <joined|signed for> {~club}.
The goalkeeper {players} saved {2-9} penalties in one season.
== Supporters ==
The supporters of {me} <sing a {tongue} song|wear {colours}>.
The rivalry with {rival} <goes back to|began in> {1900-1950}.
The shirts have been made by {~firm} since {1960-1999}.
""",
"school": """
{} is a <place of learning|school|seat of higher education> in {town}, {region}.
{} was <founded|opened> in {founded}[ with a gift from {~firm}].
{} has {staff} students[, most of them from {region}].
The head of the school is {head}.
== History ==
The first <building|hall> stood <beside the {town.river}|near the market of {town}>.
{head} became head <after|on the death of> {~person}.
In {1930-1985} a fire destroyed the library, and books were lent by {~school}.
Lessons were given in {tongue} <from the start|until {1900-1970}>.
The school moved from {~town} to {town} in {1880-1950}.
Women were admitted in {1880-1950}[, earlier than at {~school}].
== Teaching ==
The school is <strong|well known> in <physics|law|music|medicine>[ and works closely with {~firm}].
{alumni} taught <here|at {me}> for many years.
The {~award} has been won by {2-7} of its teachers.
The laboratory is named after {alumni}.
== Students ==
The {alumni.job} {alumni} <studied here|was a student at {me}>.
Among its former students are {alumni} and {alumni}.
{alumni} left {me} without a degree[ and went to {~town}].
The students row against {~school} every <May|June>.
The student team once beat {town.clubs}.
The students hold a <ball|concert> during the {~festival}.
""",
"product": """
The {me} is a {thing} <made|built> by {maker} <in|of> {maker.town}.
It was designed by {inventor} and <introduced|first sold> in {year}.
{maker} <sold|made> <about|more than> {3-80} thousand of them.
== Design ==
The {me} is <lighter|heavier|cheaper> than the {~product}.
{inventor} had worked on the {thing} <for {2-12} years|in a shed in {~town}>.
The first model was shown <at the {~festival}|in {maker.region.capital}> in {year}.
The case was made of wood from {~town}.
A later model, the {me} II, was <smaller|faster|louder>.
Its parts came from {~firm}[ and {~firm}].
The drawings of the {me} are kept at {~school}.
== Reception ==
The {job} {~person} <owned a {me}|praised the {me}|never travelled without a {me}>.
A {me} can be <seen|heard> in the film ''{~work}''.
The {me} <outsold|never sold as well as> the {rival}.
{maker.rival} <copied it|brought out a similar {thing}> within {2-9} years.
The {me} won the {~award} in {1950-1999}.
Old {me} {thing}s are <collected|prized> in {~region} and {~region}.
The factory in {maker.town} <stopped making it|built the last one> in {1960-1999}.
""",
"work": """
''{me}'' is <a {tongue} {form}|a {form}> by {author}[, <written|made> in {year}].
It is set in {setting}[, where {author} <lived for some years|was born>].
It is the story of <a clockmaker|a teacher|a child|a sailor|a judge> who <returns to|leaves|is lost in> {setting}.
== Background ==
{author} <began|finished> it in {~town} in {year}.
The idea came from <a letter by|a meeting with> {author.friend}.
{author} had studied at {author.school}, and the second part is set there.
It was dedicated to {~person}.
Parts of it are in {tongue}.
A scene beside the {~river} was <cut|added> later.
== Reception ==
It was <praised|disliked> by {~person}[, who called it <a masterpiece|too long>].
It won the {~award} in {1930-1999}.
''{me}'' was <shown|read|performed> at the {~festival}.
{~person} made a film of ''{me}''.
A copy is kept at {~school}.
It was banned in {~region} <for some years|until {1950-1990}>.
It is often compared with ''{~work}''[ by the same author].
Visitors to {setting} can follow the route of the story.
In the last part the hero <buys|breaks|repairs> a {~product}.
""",
"festival": """
The {me} is <a festival|an annual event> held in {town}, {region}, every {month}.
It was <founded|first held> in {founded} by {~person}.
It <draws|attracts> {3-90} thousand visitors[, many of them from {~region}].
== Programme ==
It opens with a <procession|concert> beside the <{town.river}|town hall>.
The opera ''{~work}'' was first performed at the {me}.
{~person} and {~person} have <played|read|spoken> there.
A football match between {~club} and {~club} is part of the programme.
Films and books in {tongue} have a day of their own.
A prize, the {~award}, is given on the last day.
Students of {~school} put up the tents.
== History ==
The festival is paid for by {~firm}[ and {town.firms}].
In {1940-1990} it was moved to {~town} because of floods.
The town of {~town} has a similar event[, the {~festival}].
{~person} directed the {me} from {1950-1970} to {1971-1995}.
The {~product} was shown to the public there for the first time.
Its poster was drawn by {~person}.
""",
"award": """
The {me} is <a prize|an award> for <young|living> {job}s, given in {town} every {month}.
It is named after {namesake}[, a {namesake.job} from {namesake.born}].
It was <founded|set up> in {founded} by <friends of {namesake}|{~firm}>.
The winner receives a medal and <money|a journey to {~town}>.
== Winners ==
{winners} won it in {1930-1999}.
Among the winners are {winners} and {winners}.
The youngest winner was the {winners.job} {winners}.
{winners} <refused the prize|gave the money to {~school}>.
The first winner came from {~town}.
In {1940-1990} it went to the author of ''{~work}''.
== Jury ==
The jury meets at {~school}[ in {region.capital}].
{~person} was head of the jury for {3-20} years.
The prize money is paid by {~firm}.
The ceremony is held during the {~festival}.
Only people born in {region} may receive the {me}.
The choice of {winners} was <criticised|welcomed> by {~person}.
""",
"concept": """
<A|In common use, a> {me} is {meaning}.
In {~region} and {~region} the word is used more widely.
A well-known {me} from {~town} is linked with {~person}.
{~school} has a course for people who want to learn more about it.
""",
}

NEWS = {
"club": """
{} beat {~club} {2-5}-{0-1} on <Saturday|Sunday>[ in front of {2000-30000} fans].
Striker {players} scored <twice|late> as {} <drew with|lost to> {~club}.
{} <sacked|signed> <coach|captain> {coach} after a poor run.
Coach {coach} said the side <deserved|needed> the points.
{players} will miss the match against {rival} with a knee injury.
Results: {} {0-4} {~club} {0-4}.
The {tongue} side trail {~club} by {2-9} points.
""",
"firm": """
Shares in {} <rose|fell> {2-19} percent in <early|late> trading.
{} said <profits|sales> had <doubled|halved> [in the quarter].
The {town} firm {} will build the {products} at a new plant in {~town}.
{} is to cut {100-900} jobs[, a union official said].
The takeover of {rival} by {} was blocked.
Chief executive {~person} <left|joined> {} in {1990-1999}.
""",
"town": """
{month} storms left parts of {} without power.
Police in {} <arrested|questioned> {2-20} people near the station.
The road between {} and {neighbour} was closed by snow.
Mayor {mayor} opened a new hospital in {}.
The {festivals} starts in {} on <Friday|Thursday>.
Residents of {} voted against a bypass.
""",
"region": """
Voters in {} go to the polls on Sunday.
{tongue} farmers <blocked|left> the main road into {capital}.
{} and {neighbour} signed a trade agreement.
The government of {} raised taxes on fuel.
Floods along the {rivers} forced {200-900} families in {towns} to leave.
""",
"person": """
{job} {}, {21-79}, was taken to hospital in {home}.
{} told reporters {it} would return to {born}.
{}, who was born in {born}, <thanked|criticised> {friend}.
Police questioned {} for {2-9} hours.
{} married {friend} in a small ceremony in {home}.
{} was awarded the {award} on Friday.
""",
"work": """
{} by {author} opens in {~town}.
Critics called {} the best {form} of the year.
{author} said {} was written in {tongue}.
{~person} will play the lead in a new version of {}.
""",
"product": """
{maker} unveiled a new version of the {} in {maker.town}.
A rare {} {thing} fetched {2-90} thousand at auction.
Designer {inventor} said the {} was cheap to build.
Owners of the {} complained about faulty parts.
""",
"school": """
Students at {} went on strike over fees.
A team from {} led by professor {alumni} published the study.
{} will close its campus in {~town}.
Graduates of {} <protested|gathered> in {town}.
""",
"festival": """
Rain spoiled the opening night of the {}.
The {tongue} {} opens on <Friday|Sunday>[, its organisers said].
Tickets for the {} sold out in {2-9} hours.
{~person} will sing at the {} in {town}.
""",
}
NEWS_ANY = """
There was no comment from {}.
{} could not be reached on <Monday|Tuesday>.
Questions about {} remain[, observers said].
{} was in the news again <this week|on Monday>.
Little has been heard of {} since the spring.
The report <mentions|praises|names> {} and {~any}.
It was a good <week|year|day> for {}.
The story began with {} and ended with {~any}.
Not everyone likes {}.
Some people prefer {~any} to {}.
{}, {~any} and {~any} were named in the letter.
A photograph of {} was on the front page.
Asked about {}, the minister smiled.
{} announced on Monday that the plan had failed.
<Friends|Critics> of {} welcomed the decision.
On Wednesday attention turned to {}.
For {} the news came too late.
{} is famous far beyond {~any}.
"""
