//! The routes with actix-session.

use actix_web::dev::{Service, ServiceResponse};

use super::{Answer, App, Gate, Jar, KEYS, show};

pub struct ActixApp<S>(S);

impl<S> App for ActixApp<S>
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = actix_web::Error>,
{
    async fn get(&self, path: &str, jar: &Jar) -> Answer {
        let request = actix_web::test::TestRequest::get()
            .uri(path)
            .insert_header(("cookie", jar.header()))
            .insert_header(("user-agent", jar.user_agent))
            .to_request();
        let response = self.0.call(request).await.unwrap();
        let set_cookies = response.headers().get_all("set-cookie");
        Answer {
            status: response.status().as_u16(),
            set_cookies: set_cookies
                .map(|it| it.to_str().unwrap().to_owned())
                .collect(),
            body: String::from_utf8(actix_web::test::read_body(response).await.into()).unwrap(),
        }
    }
}

pub async fn actix_session(
    store: impl actix_session::storage::SessionStore + 'static,
) -> (impl App, Gate) {
    use actix_session::Session;
    use actix_web::{HttpResponse, web};

    type Answer<T = &'static str> = Result<T, actix_web::Error>;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let key = actix_web::cookie::Key::generate();
    let app = actix_web::App::new()
        .route(
            "/log_in",
            web::get().to(async |session: Session| -> Answer {
                session.renew();
                session.insert("user", "ada")?;
                Ok("logged in")
            }),
        )
        .route(
            "/log_out",
            web::get().to(async |session: Session| {
                session.purge();
                "logged out"
            }),
        )
        .route(
            "/show",
            web::get().to(async |session: Session| -> Answer<String> {
                Ok(show(session.get("user")?, session.get("count")?))
            }),
        )
        .route(
            "/count",
            web::get().to(move |session: Session| {
                let at_gate = at_gate.clone();
                async move {
                    let count: Option<u64> = session.get("count")?;
                    at_gate.pass().await;
                    session.insert("count", count.unwrap_or(0) + 1)?;
                    Ok::<_, actix_web::Error>("counted")
                }
            }),
        )
        .route(
            "/set/{key}",
            web::get().to(move |session: Session, key: web::Path<String>| {
                let before_set = before_set.clone();
                async move {
                    before_set.pass().await;
                    session.insert(key.into_inner(), true)?;
                    Ok::<_, actix_web::Error>("set")
                }
            }),
        )
        .route(
            "/keys",
            web::get().to(async |session: Session| {
                let has = |key: &usize| session.contains_key(&key.to_string());
                (0..KEYS).filter(has).count().to_string()
            }),
        )
        .route(
            "/fail",
            web::get().to(async |session: Session| -> Answer<HttpResponse> {
                session.insert("count", 100_u64)?;
                Ok(HttpResponse::InternalServerError().finish())
            }),
        )
        .route(
            "/update",
            web::get().to(async |session: Session| -> Answer {
                session.update("count", |n: u64| n + 1)?;
                Ok("updated")
            }),
        )
        .wrap(actix_session::SessionMiddleware::new(store, key));
    (ActixApp(actix_web::test::init_service(app).await), gate)
}
