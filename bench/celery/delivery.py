"""The system that Vantrexia replaces, as small as it can be: an intake, and a Celery task that delivers a reading.

`bench/celery.go` starts it: gunicorn with `application`, and a Celery worker with `app`. Everything that can be kept is kept:
connections to the database, to Redis and to the EHR, and the access token, one of each a process.
"""

import datetime
import json
import os
import threading
import time
import uuid

import celery
import jwt
import psycopg2
import requests

CONFIG = json.loads(os.environ["BENCH_ROLE_CONFIG"])

app = celery.Celery("delivery", broker=CONFIG["Broker"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)

mine = threading.local()


def database():
    """The thread's connection, which commits each statement."""
    if not hasattr(mine, "database"):
        mine.database = psycopg2.connect(CONFIG["DatabaseURL"])
        mine.database.autocommit = True
    return mine.database


def execute(statement, *values):
    with database().cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone() if cursor.description else None


class EHR:
    """Keeps the connection and the access token."""

    def __init__(self):
        self.session = requests.Session()
        self.token = None
        self.until = 0
        with open(CONFIG["KeyFile"]) as file:
            self.key = file.read()

    def authenticate(self):
        if time.time() < self.until:
            return self.token
        client, url = CONFIG["ClientID"], CONFIG["TokenURL"]
        claims = {"iss": client, "sub": client, "aud": url, "exp": int(time.time()) + 240, "jti": str(uuid.uuid4())}
        answer = self.session.post(
            url,
            data={
                "grant_type": "client_credentials",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": jwt.encode(claims, self.key, algorithm="RS384", headers={"kid": CONFIG["KeyID"]}),
                "scope": CONFIG["Scope"],
            },
            timeout=30,
        )
        answer.raise_for_status()
        granted = answer.json()
        self.token, self.until = granted["access_token"], time.time() + granted["expires_in"] - 30
        return self.token

    def create(self, resource):
        answer = self.session.post(
            CONFIG["FHIRBaseURL"] + "/Observation",
            data=json.dumps(resource),
            headers={"Authorization": "Bearer " + self.authenticate(), "Content-Type": "application/fhir+json"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.headers["Location"].split("/")[-3]


def ehr():
    if not hasattr(mine, "ehr"):
        mine.ehr = EHR()
    return mine.ehr


def concept(system, code, display):
    return {"coding": [{"system": system, "code": code, "display": display}]}


COMPONENTS = (
    ("systolic", "8480-6", "Systolic blood pressure", "mmHg", "mm[Hg]"),
    ("diastolic", "8462-4", "Diastolic blood pressure", "mmHg", "mm[Hg]"),
    ("heart_rate", "8867-4", "Heart rate", "beats/minute", "/min"),
)


def transform(reading, patient, at, device, values):
    """The same resource as package fhir makes."""
    return {
        "resourceType": "Observation",
        "meta": {
            "profile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-blood-pressure"],
            "tag": [
                {
                    "system": "https://vantrexia.com/fhir/CodeSystem/source",
                    "code": "vantrexia-rpm",
                    "display": "Vantrexia RPM",
                },
                {"system": "http://hl7.org/fhir/us/core/CodeSystem/us-core-tags", "code": "patient-supplied"},
            ],
        },
        "identifier": [{"system": CONFIG["IdentifierSystem"], "value": reading}],
        "status": "final",
        "category": [
            concept("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", "Vital Signs")
        ],
        "code": concept("http://loinc.org", "85354-9", "Blood pressure panel with all children optional"),
        "subject": {"reference": "Patient/" + patient},
        "effectiveDateTime": at.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z"),
        "device": {"display": device},
        "component": [
            {
                "code": concept("http://loinc.org", code, display),
                "valueQuantity": {
                    "value": values[name],
                    "unit": unit,
                    "system": "http://unitsofmeasure.org",
                    "code": ucum,
                },
            }
            for name, code, display, unit, ucum in COMPONENTS
            if name in values
        ],
    }


@app.task(autoretry_for=(Exception,), retry_backoff=True, max_retries=5)
def deliver(reading):
    row = execute('SELECT patient, effective_at, device, "values" FROM readings WHERE id = %s', reading)
    ecw_id = ehr().create(transform(reading, *row))
    execute("UPDATE readings SET status = 'transmitted', ecw_id = %s WHERE id = %s", ecw_id, reading)


def application(environ, start_response):
    """The intake: stores the reading and hands it to Celery."""
    body = b"{}"
    status = "200 OK"
    if environ["REQUEST_METHOD"] == "POST":
        sent = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        reading = str(uuid.uuid4())
        execute(
            'INSERT INTO readings (id, patient, type, effective_at, device, "values", status)'
            " VALUES (%s, %s, %s, %s, %s, %s, 'pending')",
            reading,
            sent["patient_id"],
            sent["observation_type"],
            sent["effective_at"],
            sent["device"],
            json.dumps(sent["values"]),
        )
        deliver.delay(reading)
        status, body = "201 Created", json.dumps({"id": reading}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
