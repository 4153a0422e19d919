//! The client of DynamoDB, and the wire to a server, which can break at each call.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{Config, Credentials, Region, SharedHttpClient};
use aws_sdk_dynamodb::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use cloakroom::DynamoDbStore;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};

use crate::servers::Server;

/// The body of a request. `hyper` takes a copy, because the wire adds a line to it.
type Body = Full<std::io::Cursor<Vec<u8>>>;

/// A call that no caller waits for is made within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing. The next fault is for a later call.
    None,
    /// The server does what it is asked for, and the client does not get the answer.
    LosesAnswer,
    /// The server does what it is asked for, and then says that it failed.
    AnswersAfterwards(u16, &'static str),
    /// The call does not reach the server.
    LosesCall,
    /// The call does not reach the server, and the client gets an error of this type.
    Answers(u16, &'static str),
    /// The call does not reach the server, and the client gets this answer.
    Says(u16, String),
    /// The server does what it is asked for after some time. The client gets its answer then.
    IsSlow(Duration),
}

/// A call, and the capacity units that it has used.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub operation: String,
    pub units: f64,
    /// The request, as it was sent.
    pub request: Value,
}

/// The way from clients to a server. Clones are the same way.
///
/// dynalite has no TTL, so this answers the calls about it.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

struct Shared {
    address: String,
    faults: Mutex<VecDeque<(String, Fault)>>,
    calls: Mutex<Vec<Call>>,
    /// The TTL attributes of tables.
    ttls: Mutex<HashMap<String, String>>,
}

impl Wire {
    pub fn to(server: &Server) -> Self {
        Self::to_address(&server.address())
    }

    pub fn to_address(address: &str) -> Self {
        Self(Arc::new(Shared {
            address: address.to_owned(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            ttls: Mutex::default(),
        }))
    }

    /// A client as an application has it. It has connections of its own.
    pub fn client(&self) -> Client {
        Client::from_conf(self.config().build())
    }

    pub fn config(&self) -> aws_sdk_dynamodb::config::Builder {
        let connector = SharedHttpConnector::new(Connector {
            wire: self.clone(),
            // The server closes a connection that idles for five seconds.
            client: legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(2))
                .build_http(),
        });
        let client: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
        let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(10));
        Config::builder()
            .behavior_version_latest()
            .endpoint_url(format!("http://{}", self.0.address))
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .http_client(client)
            .retry_config(retries)
    }

    /// A store in a new table.
    pub async fn store(&self, table: &str) -> DynamoDbStore {
        let store = DynamoDbStore::new(self.client(), table).unwrap();
        store.create_table().await.unwrap();
        self.take_calls();
        store
    }

    /// Breaks the next call of an operation. Further calls of this wait for their turn.
    pub fn break_next(&self, operation: &str, fault: Fault) {
        let mut faults = self.0.faults.lock().unwrap();
        faults.push_back((operation.to_owned(), fault));
    }

    /// How many calls are still to break.
    pub fn unbroken(&self) -> usize {
        self.0.faults.lock().unwrap().len()
    }

    /// The calls since the last time a test asked for them.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.calls.lock().unwrap())
    }

    /// Waits until there are so many calls.
    pub async fn wait_for_calls(&self, count: usize) {
        let begin = Instant::now();
        while self.0.calls.lock().unwrap().len() < count {
            assert!(begin.elapsed() < PATIENCE, "{:?}", self.take_calls());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The TTL attribute of a table.
    pub fn ttl_of(&self, table: &str) -> Option<String> {
        self.0.ttls.lock().unwrap().get(table).cloned()
    }

    fn fault(&self, operation: &str) -> Option<Fault> {
        let mut faults = self.0.faults.lock().unwrap();
        let is_next = |(of, _): &(String, Fault)| of == operation;
        let at = faults.iter().position(is_next)?;
        faults.remove(at).map(|(_, fault)| fault)
    }

    /// The answer to a call about the TTL of a table.
    fn answer_about_ttl(&self, operation: &str, request: &Value) -> Option<HttpResponse> {
        let table = request["TableName"].as_str().unwrap_or_default();
        let mut ttls = self.0.ttls.lock().unwrap();
        let answer = match operation {
            "DescribeTimeToLive" => match ttls.get(table) {
                Some(name) => json!({ "TimeToLiveDescription": {
                    "TimeToLiveStatus": "ENABLED", "AttributeName": name,
                } }),
                None => json!({ "TimeToLiveDescription": { "TimeToLiveStatus": "DISABLED" } }),
            },
            "UpdateTimeToLive" => {
                let ttl = &request["TimeToLiveSpecification"];
                assert_eq!(ttl["Enabled"], true);
                let name = ttl["AttributeName"].as_str().unwrap().to_owned();
                if ttls.insert(table.to_owned(), name).is_some() {
                    let answer = json!({
                        "__type": "com.amazon.coral.validate#ValidationException",
                        "message": "TimeToLive is already enabled",
                    });
                    return Some(response(400, answer.to_string()));
                }
                json!({ "TimeToLiveSpecification": ttl })
            }
            _ => return None,
        };
        Some(response(200, answer.to_string()))
    }
}

/// Sends the calls of one client.
struct Connector {
    wire: Wire,
    client: legacy::Client<TcpConnector, Body>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (wire, client) = (self.wire.clone(), self.client.clone());
        HttpConnectorFuture::new(send(wire, client, request))
    }
}

async fn send(
    wire: Wire,
    client: legacy::Client<TcpConnector, Body>,
    request: HttpRequest,
) -> Result<HttpResponse, ConnectorError> {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let mut asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
    let call = |units| Call {
        operation: operation.clone(),
        units,
        request: asked.clone(),
    };
    let fault = wire.fault(&operation);
    match fault {
        Some(Fault::LosesCall) => {
            wire.0.calls.lock().unwrap().push(call(0.0));
            return Err(lost());
        }
        Some(Fault::Answers(status, kind)) => {
            wire.0.calls.lock().unwrap().push(call(0.0));
            return Ok(failure(status, kind));
        }
        Some(Fault::Says(status, answer)) => {
            wire.0.calls.lock().unwrap().push(call(0.0));
            return Ok(response(status, answer));
        }
        _ => {}
    }
    if let Some(answer) = wire.answer_about_ttl(&operation, &asked) {
        wire.0.calls.lock().unwrap().push(call(0.0));
        return Ok(answer);
    }
    let mut call = call(0.0);
    asked["ReturnConsumedCapacity"] = json!("TOTAL");

    let request = request.try_into_http1x().unwrap();
    let (mut parts, _) = request.into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let body = Full::new(std::io::Cursor::new(serde_json::to_vec(&asked).unwrap()));
    let io = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::io(error);
    let pause = match fault {
        Some(Fault::IsSlow(time)) => time,
        _ => Duration::ZERO,
    };
    // A client that goes away does not take back what it has sent.
    let sent = tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let answer = client
            .request(http::Request::from_parts(parts, body))
            .await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes().to_vec();
        Ok::<(u16, Vec<u8>), Box<dyn std::error::Error + Send + Sync>>((status, body))
    });
    let (status, body) = sent.await.unwrap().map_err(io)?;
    let said: Value = serde_json::from_slice(&body).unwrap();
    call.units = units(&said["ConsumedCapacity"]);
    wire.0.calls.lock().unwrap().push(call);
    match fault {
        Some(Fault::LosesAnswer) => Err(lost()),
        Some(Fault::AnswersAfterwards(status, kind)) => Ok(failure(status, kind)),
        _ => Ok(response(status, body)),
    }
}

/// A batch has them for each table.
fn units(consumed: &Value) -> f64 {
    match consumed {
        Value::Array(of_tables) => of_tables.iter().map(units).sum(),
        of_table => of_table["CapacityUnits"].as_f64().unwrap_or_default(),
    }
}

fn lost() -> ConnectorError {
    ConnectorError::io("the connection broke".into())
}

fn failure(status: u16, kind: &str) -> HttpResponse {
    let answer = json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"),
        "message": "said by the test",
    });
    response(status, answer.to_string())
}

fn response(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), body.into().into())
}
