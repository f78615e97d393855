"""Six kinds of web site: what their forms ask, and how people say what they want there.

Labels, options and values hold none of `|;:,` (`one_line.py`), and no word of 15 letters or more,
which a page does not show (`page.py`).
"""

from dataclasses import dataclass

from gcd.tasks.web_browsing.markup import Element


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


CITIES = _list(
    "Oslo, Lisbon, Vienna, Dublin, Prague, Athens, Warsaw, Madrid, Berlin, Geneva, Toronto, "
    "Boston, Denver, Seattle, Austin, Chicago, Sydney, Cairo, Nairobi, Lima, Quito, Mumbai, Osaka, "
    "Seoul"
)
DATES = _list(
    "March 3, March 18, April 5, April 29, May 11, May 24, June 2, June 17, July 8, July 30, "
    "August 14, August 26, September 9, October 1, November 12, December 20"
)
NAMES = _list(
    "Alma, Bruno, Carla, Dorian, Elena, Felix, Greta, Hugo, Irene, Jonas, Karen, Louis, Mira, Nadia"
)
SUBMIT_PHRASE = "see what there is"


@dataclass(frozen=True)
class Field:
    """One element of a form.

    `phrase` says what it is for without its label, around a {value}. `values` are what may be
    typed or selected; empty for elements that are clicked.
    """

    kind: str
    label: str
    phrase: str
    values: tuple[str, ...] = ()

    @property
    def element(self) -> Element:
        """As it stands on the page."""
        return Element(self.kind, self.label, self.values if self.kind == "select" else ())


@dataclass(frozen=True)
class Template:
    """A kind of site. `goal` opens every task; `fields` are in the page's order, then `submit`.

    `buttons` and `links` lead elsewhere: no task needs them.
    """

    domain: str
    websites: tuple[str, ...]
    title: str
    goal: str
    fields: tuple[Field, ...]
    submit: str
    buttons: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def submit_field(self) -> Field:
        """The form's button, which ends every task."""
        return Field("button", self.submit, SUBMIT_PHRASE)


def _input(label: str, phrase: str, values: tuple[str, ...]) -> Field:
    return Field("input", label, phrase, values)


def _select(label: str, phrase: str, values: str) -> Field:
    return Field("select", label, phrase, _list(values))


def _checkbox(label: str, phrase: str) -> Field:
    return Field("checkbox", label, phrase)


FOOTER = _list(
    "Contact us, Privacy policy, Terms of use, Press, Investors, Accessibility, Newsletter, Careers"
)

TEMPLATES = {
    "flight_search": Template(
        domain="Travel",
        websites=("skylane", "airfinch", "cloudpath"),
        title="Plan your trip",
        goal="Find a flight",
        fields=(
            _input("Where from", "leaving {value}", CITIES),
            _input("Where to", "arriving in {value}", CITIES),
            _input("Departure day", "setting off on {value}", DATES),
            _select("Passengers", "for {value} people", "2, 3, 4, 5"),
            _select("Cabin class", "sitting in {value}", "Economy, Premium, Business"),
            _select("Suitcases", "with {value} pieces of luggage", "2, 3, 4"),
            _checkbox("Direct flights only", "without any stop"),
            _checkbox("Flexible fare", "with a ticket that can be changed"),
        ),
        submit="Search flights",
        buttons=("Sign in", "Change language", "Clear form"),
        links=_list("Hotels, My trips, Flight status, Check-in, Deals, Gift cards, Lounges"),
    ),
    "store_list": Template(
        domain="Shopping",
        websites=("homeyard", "brightmart", "fieldgoods"),
        title="Our shops",
        goal="Find a store",
        fields=(
            _input("City or postcode", "near {value}", CITIES),
            _select("Distance", "at most {value} away", "5 km, 10 km, 25 km, 50 km"),
            _select("Department", "that sells {value}", "Shoes, Toys, Books, Garden"),
            _select("Store type", "of the kind {value}", "Outlet, Flagship, Express"),
            _input("Manager", "run by {value}", NAMES),
            _checkbox("Open on Sunday", "for a visit at the weekend"),
            _checkbox("Free parking", "where the car can stay at no cost"),
            _checkbox("Step-free access", "with an entrance for wheelchairs"),
        ),
        submit="Show stores",
        buttons=("Sign in", "Basket", "Close map"),
        links=_list("New arrivals, Sale, Wish list, Returns, Track order, Gift ideas, Catalogue"),
    ),
    "rental_form": Template(
        domain="Travel",
        websites=("wheelhouse", "rentaway", "gocarry"),
        title="Cars and vans",
        goal="Rent a car",
        fields=(
            _input("Pick-up place", "collected in {value}", CITIES),
            _input("Return place", "brought back in {value}", CITIES),
            _input("First day", "from {value}", DATES),
            _input("Last day", "until {value}", DATES),
            _select("Car type", "of the size {value}", "Compact, Family, Van, Truck"),
            _select("Driver age", "for somebody who is {value}", "22, 25, 30, 65"),
            _checkbox("Child seat", "fit for a toddler"),
            _checkbox("Full insurance", "covered for any damage"),
        ),
        submit="See cars",
        buttons=("Sign in", "Chat with us", "Start again"),
        links=_list("Fleet, Business rental, Locations, Rewards, Receipts, Road tips, Used cars"),
    ),
    "job_board": Template(
        domain="Work",
        websites=("worknest", "careerly", "jobharbor"),
        title="Open positions",
        goal="Find a job",
        fields=(
            _input(
                "Job title", "as a {value}", _list("nurse, baker, teacher, welder, pilot, clerk")
            ),
            _input("Job location", "in {value}", CITIES),
            _select("Contract", "that is {value}", "Permanent, Temporary, Seasonal"),
            _select("Lowest salary", "paying {value} or more", "20000, 35000, 50000, 80000"),
            _select("Experience", "at the level {value}", "Junior, Senior, Manager"),
            _input("Recruiter", "offered by {value}", NAMES),
            _checkbox("Remote work", "that can be done from home"),
            _checkbox("Posted this week", "that is only days old"),
        ),
        submit="Search jobs",
        buttons=("Sign in", "Upload resume", "Reset filters"),
        links=_list("Companies, Salaries, Interview tips, My alerts, Reviews, Employers, Training"),
    ),
    "course_catalogue": Template(
        domain="Education",
        websites=("openlectern", "studyhall", "learnfold"),
        title="Courses this year",
        goal="Find a course",
        fields=(
            _input(
                "Subject", "about {value}", _list("history, biology, music, law, optics, ethics")
            ),
            _input("Lecturer", "given by {value}", NAMES),
            _select("Term", "that runs in {value}", "Spring, Summer, Autumn"),
            _select("Level", "for a student who is {value}", "Beginner, Advanced, Expert"),
            _select("Campus", "held on the side {value}", "North, South, Harbour"),
            _select("Credits", "worth {value} points", "3, 5, 10"),
            _checkbox("Evening classes", "after office hours"),
            _checkbox("Taught online", "that needs no travel"),
        ),
        submit="Show courses",
        buttons=("Sign in", "Print list", "Hide filters"),
        links=_list("Library, Calendar, Admissions, Housing, Research, Alumni, Student clubs"),
    ),
    "restaurant_booking": Template(
        domain="Food",
        websites=("tablely", "forkfinder", "dinewell"),
        title="Where to eat",
        goal="Book a table",
        fields=(
            _input("Cuisine", "with food that is {value}", _list("Thai, Greek, Indian, Mexican")),
            _input("Town", "in {value}", CITIES),
            _input("Day of visit", "on {value}", DATES),
            _select("Time", "at {value}", "noon, 6 pm, 7 pm, 9 pm"),
            _select("Guests", "for a party of {value}", "2, 4, 6, 8"),
            _select("Occasion", "because of a {value}", "birthday, wedding, meeting"),
            _checkbox("Outdoor seating", "in the open air"),
            _checkbox("Vegetarian menu", "without any meat"),
        ),
        submit="Find a table",
        buttons=("Sign in", "Show map", "Saved places"),
        links=_list("Delivery, Gift vouchers, Events, Chefs, Recipes, Wine list, For owners"),
    ),
}
