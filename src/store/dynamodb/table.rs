//! Making the table.

use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::time::{Instant, sleep};

use super::DynamoDbStore;
use super::failure::Failure;

/// DynamoDB needs some seconds to make a table.
const TABLE_TIMEOUT: Duration = Duration::from_secs(60);
const TABLE_PAUSE: Duration = Duration::from_millis(500);

impl DynamoDbStore {
    pub(super) async fn make_table(&self) -> Result<(), Failure> {
        let keys = [
            (&self.names.partition_key, KeyType::Hash),
            (&self.names.sort_key, KeyType::Range),
        ];
        let mut create = self
            .reader
            .create_table()
            .table_name(&self.names.table)
            .billing_mode(BillingMode::PayPerRequest);
        for (name, key_type) in keys {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build();
            let key = KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(key_type)
                .build();
            let incomplete =
                |error: aws_sdk_dynamodb::error::BuildError| Failure::new(error.to_string());
            create = create
                .attribute_definitions(attribute.map_err(incomplete)?)
                .key_schema(key.map_err(incomplete)?);
        }
        match create.send().await {
            Ok(_) => {}
            // The table is there, or another node is making it.
            Err(error) if error.code() == Some("ResourceInUseException") => {}
            Err(error) => return Err(Failure::of(error)),
        }
        self.wait_for_table().await?;
        self.turn_on_ttl().await
    }

    /// Waits until the table can be used, and looks at its keys.
    async fn wait_for_table(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + TABLE_TIMEOUT;
        loop {
            let describe = self.reader.describe_table().table_name(&self.names.table);
            let table = describe.send().await.map_err(Failure::of)?.table;
            let status = table.as_ref().and_then(|table| table.table_status.as_ref());
            if let Some(table) = &table
                && matches!(status, Some(TableStatus::Active | TableStatus::Updating))
            {
                let keys = table
                    .key_schema()
                    .iter()
                    .map(KeySchemaElement::attribute_name);
                let keys: Vec<_> = keys.collect();
                let [partition, sort] = [&self.names.partition_key, &self.names.sort_key];
                return match keys == [partition, sort] {
                    true => Ok(()),
                    false => Err(Failure::new(format!(
                        "the table has the keys {keys:?}, and the store needs a partition key \
                         {partition:?} and a sort key {sort:?}; give the names of the table's keys \
                         to `with_key_names`, or use another table"
                    ))),
                };
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the table is not ready after {TABLE_TIMEOUT:?}; its status is {status:?}"
                )));
            }
            sleep(TABLE_PAUSE).await;
        }
    }

    /// Lets DynamoDB remove expired items. Another node may do the same at this moment.
    async fn turn_on_ttl(&self) -> Result<(), Failure> {
        if self.has_ttl().await? {
            return Ok(());
        }
        let ttl = TimeToLiveSpecification::builder()
            .attribute_name(&self.names.ttl)
            .enabled(true)
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        let update = self
            .reader
            .update_time_to_live()
            .table_name(&self.names.table)
            .time_to_live_specification(ttl);
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.has_ttl().await? {
                true => Ok(()),
                false => Err(Failure::of(error)),
            },
        }
    }

    /// Whether the table has its TTL. It is an error if the table has one by another attribute.
    async fn has_ttl(&self) -> Result<bool, Failure> {
        let describe = self.reader.describe_time_to_live();
        let describe = describe.table_name(&self.names.table);
        let ttl = describe.send().await.map_err(Failure::of)?;
        let Some(ttl) = ttl.time_to_live_description else {
            return Ok(false);
        };
        let is_on = matches!(
            ttl.time_to_live_status,
            Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
        );
        match ttl.attribute_name {
            Some(name) if is_on && name != self.names.ttl => Err(Failure::new(format!(
                "the table has its TTL in the attribute {name:?}; give this name to \
                 `with_ttl_attribute`"
            ))),
            _ => Ok(is_on),
        }
    }
}
