"""What is Django's own in Django's face: its users, its requests, its settings. Django is ready for all tests here."""

from tests.support.django_project import set_up

set_up()
